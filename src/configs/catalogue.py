"""Everything a config can name: keys, methods, backbones; known without importing torch.

Methods, optimizers and backbones stand in code that needs torch, which takes seconds to import. What configs must know
of them is therefore written to the user's cache folder when they have been imported once, in a file whose name is a
hash of the source: any change there makes a new one. If the code is loaded anyway, it is read
directly, so that methods added by a program are included.
"""

import functools
import hashlib
import importlib
import json
import logging
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..utils.io import write_atomic
from ..utils.paths import user_cache
from .keys import Key, declared

logger = logging.getLogger(__name__)

PACKAGE = __package__.rpartition(".")[0]
SOURCE = Path(__file__).parents[1]
ROOMS = ("configs", "data", "models", "solver")  # folders of src with what the catalogue is made of
MOST_FILES = 16  # in the cache


@dataclass(frozen=True)
class MethodFacts:
    """What configs know of a method.

    Attributes:
        adamw_lr: its learning rate with AdamW.
        in_end2end: full fine-tuning can learn all that it can.
        own_decay: its original code says what decays.
        own_width: the head sees more than the ViT's features.
        own_checks: some of its keys do not go together (``Method.problems``).
    """

    adamw_lr: float
    in_end2end: bool
    own_decay: bool
    own_width: bool
    own_checks: bool


@dataclass(frozen=True)
class BackboneFacts:
    """What configs know of a row of the zoo.

    Attributes:
        patch_size: in pixels; 0 for networks without patches.
        has_text: its weights come with a text tower.
    """

    patch_size: int
    has_text: bool


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Everything a config can name.

    Attributes:
        keys: by name, with their comments where they come from the cache (see reference.py).
        methods: in the order of METHODS.
        shorthands, filters, refused: as SHORTHANDS, FREQFIT_METHODS and REFUSED in vit_models.py.
        backbones, aliases: as MODEL_ZOO and ALIASES in vit_backbones/rows.
    """

    keys: dict[str, Key]
    methods: dict[str, MethodFacts]
    shorthands: dict[str, tuple[str, dict[str, Any]]]
    filters: dict[str, str]
    refused: tuple[tuple[tuple[str, ...], str], ...]
    backbones: dict[str, BackboneFacts]
    aliases: dict[str, str]


def catalogue() -> Catalogue:
    """The catalogue: from the code if it is loaded, else from the cache, else the code is loaded."""
    return from_code() if _is_loaded() else _cached()


def _is_loaded() -> bool:
    module = sys.modules.get(f"{PACKAGE}.models.vit_models")
    return hasattr(module, "build_model")  # its last definition: not while it is being imported


def from_code() -> Catalogue:
    """The catalogue as the code says; imports torch."""
    from ..models.vit_backbones import zoo

    backbones = {name: BackboneFacts(zoo.patch_size(row), row.has_text) for name, row in zoo.MODEL_ZOO.items()}
    return _read_code(tuple(method_classes().items()), tuple(backbones.items()))


def method_classes() -> dict[str, type]:
    """METHODS; imports torch."""
    return importlib.import_module(f"{PACKAGE}.models.vit_models").METHODS


@functools.lru_cache(maxsize=8)
def _read_code(methods: tuple, backbones: tuple) -> Catalogue:
    """The same with these rows in METHODS and MODEL_ZOO, to which code may add."""
    from ..models.method import Method
    from ..models.vit_backbones.zoo import ALIASES
    from ..models.vit_models import FREQFIT_METHODS, REFUSED, SHORTHANDS
    from .tree import tree

    cfg = tree()
    for name, method in methods:
        if defaults := method.defaults():
            cfg.MODEL[name.upper().replace("-", "_")] = defaults
    facts = {
        name: MethodFacts(
            method.adamw_lr,
            method.folds and not method.adds_blocks and name != "end2end",
            method.decays is not Method.decays,
            method.num_features is not Method.num_features,
            method.problems is not Method.problems,
        )
        for name, method in methods
    }
    return Catalogue(
        declared(cfg), facts, SHORTHANDS, FREQFIT_METHODS, tuple(REFUSED.items()), dict(backbones), ALIASES
    )


@functools.cache
def _cached() -> Catalogue:
    path = user_cache() / f"config-{_hash_of_source()}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        return from_json(path.read_text(encoding="utf-8"))
    return write_cache(path)


def write_cache(path: Path) -> Catalogue:
    """Load the code, and write what it says to ``path`` for the next time, if that can be written to."""
    from .reference import all_keys

    content = from_code()
    text = to_json(replace(content, keys=all_keys()))
    try:
        write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        for old in sorted(path.parent.glob("config-*.json"), key=lambda file: file.stat().st_mtime)[:-MOST_FILES]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("the next start imports torch again: %s", error)
    return content


def _hash_of_source() -> str:
    layout = f"1 {sys.modules[PACKAGE].__version__}"  # of the file; the version, for installations without sources
    digest = hashlib.sha256(layout.encode())
    for room in ROOMS:
        for file in sorted((SOURCE / room).rglob("*.py")):
            digest.update(f"{file.relative_to(SOURCE)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def to_json(content: Catalogue) -> str:
    """A catalogue as text."""
    return json.dumps(asdict(content))


def from_json(text: str) -> Catalogue:
    """A catalogue from what ``to_json`` made.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    content = json.loads(text)
    return Catalogue(
        {name: _key(facts) for name, facts in content["keys"].items()},
        {name: MethodFacts(**facts) for name, facts in content["methods"].items()},
        {name: (method, keys) for name, (method, keys) in content["shorthands"].items()},
        content["filters"],
        tuple((tuple(names), reason) for names, reason in content["refused"]),
        {name: BackboneFacts(**facts) for name, facts in content["backbones"].items()},
        content["aliases"],
    )


def _key(facts: dict[str, Any]) -> Key:
    tuples = {name: tuple(facts[name]) for name in ("choices", "also", "lengths")}
    return Key(**facts | tuples)
