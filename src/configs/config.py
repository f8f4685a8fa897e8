"""Loading a config: defaults, YAML files, KEY VALUE pairs, checked and frozen. Keys are declared in tree.py.

Nothing that is imported here brings torch along, so that mistakes are reported at once: see catalogue.py.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from ..utils.yaml import safe_load
from . import checks, legacy
from .auto import resolve
from .catalogue import Catalogue, catalogue
from .checks import Check
from .draft import Draft
from .files import ConfigError, Setting, file_settings, pair_settings
from .keys import tree_of
from .values import flatten, shown

logger = logging.getLogger(__name__)


def get_cfg() -> CfgNode:
    """A fresh config with every key at its default."""
    return tree_of(catalogue().keys.values())


def load_cfg(
    config_file: str | Path = "",
    overrides: list[str] | tuple[str, ...] = (),
    check: Check = checks.problems,
    for_vpt: bool = False,
) -> CfgNode:
    """The frozen config of a run: defaults, then the YAML file with its ``_BASE_`` chain, then KEY VALUE pairs.

    Args:
        config_file: a path, or a name such as "digits": see ``find_config``.
        check: what to check; ``checks.methods`` where there is no data set and no backbone of the zoo.
        for_vpt: these settings were written for VPT or FreqFiT, even if their keys do not show it.

    Raises:
        ConfigError: unknown keys, wrong types or values that cannot work together, all of them in one message.
    """
    problems: list[str] = []
    settings, _ = file_settings(config_file, problems)
    return load_settings([*settings, *pair_settings(overrides, problems)], problems, check, for_vpt=for_vpt)


def load_cfg_text(text: str, overrides: list[str] | tuple[str, ...] = (), check: Check = checks.problems) -> CfgNode:
    """The same from YAML text, a finished run's config, without its warnings.

    Raises:
        ConfigError: as ``load_cfg``, and for a text that holds no settings.
    """
    problems: list[str] = []
    try:
        content = safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the saved config cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the saved config holds no settings, but {shown(content)}")
    saved = [(key, value, "the saved config") for key, value in flatten(content).items()]
    return load_settings([*saved, *pair_settings(overrides, problems)], problems, check, quiet=True)


def model_cfg(transfer_type: str, keys: dict[str, Any]) -> CfgNode:
    """The frozen config of a ViT in memory: these methods, and keys of ``MODEL`` (``{"LORA": {"RANK": 4}}``).

    Its head starts as timm's ``reset_classifier`` starts one: nobody knows with which optimizer it will be trained.

    Raises:
        ConfigError: as ``load_cfg``.
    """
    settings = {"MODEL.HEAD_INIT": "linear"} | flatten({"MODEL": keys} | {"MODEL.TRANSFER_TYPE": transfer_type})
    return load_settings([(key, value, "the call") for key, value in settings.items()], [], checks.methods, quiet=True)


def load_settings(
    settings: list[Setting],
    problems: list[str],
    check: Check = checks.problems,
    quiet: bool = False,
    for_vpt: bool = False,
) -> CfgNode:
    """Defaults with ``settings`` on top, checked and frozen.

    Args:
        problems: found before.
        quiet: log no notes.
        for_vpt: as in ``load_cfg``.

    Raises:
        ConfigError: as ``load_cfg``.
    """
    draft, notes = Draft(), []
    for_vpt = for_vpt or legacy.for_vpt((key, value) for key, value, _ in settings)
    if legacy.is_saved(key for key, *_ in settings):
        settings = [*((key, value, "runs before it") for key, value in legacy.UNNAMED.items()), *settings]
    for key, value, where in settings:
        key, value, note = legacy.translate(key, value)
        if note:
            notes.append(note)
        if key is not None:
            draft.set(key, value, where)
    cfg = draft.cfg
    notes += resolve(cfg, for_vpt, _means_epochs(settings))
    if problems := [*problems, *draft.problems, *check(cfg, draft.unsettled)]:
        raise ConfigError("the config has problems:\n" + "\n".join(f"  - {p}" for p in dict.fromkeys(problems)))
    for note in dict.fromkeys([*notes, *checks.warnings(cfg)] if not quiet and check is checks.problems else []):
        logger.warning("note: %s", note)
    cfg.freeze()
    return cfg


def _means_epochs(settings: list[Setting]) -> bool:
    """Whether TOTAL_EPOCH was set later, and elsewhere, than MIN_STEPS: then that many epochs are meant."""
    last = {key: (number, where) for number, (key, _, where) in enumerate(settings)}
    epochs, steps = (last.get(f"SOLVER.{name}", (-1, "")) for name in ("TOTAL_EPOCH", "MIN_STEPS"))
    return epochs[0] > steps[0] and epochs[1] != steps[1]


def changed(cfg: CfgNode) -> dict[str, Any]:
    """The keys of ``cfg`` that are not what a run has that does not name them: ``{"SOLVER.BASE_LR": 0.1, ...}``."""
    unnamed = unnamed_values()
    return {key: value for key, value in flatten(cfg).items() if unnamed[key] != value}


def unnamed_values() -> dict[str, Any]:
    """Every key's value in a run whose record does not name it: its default, or what it was before it had one."""
    return {name: key.default for name, key in catalogue().keys.items()} | legacy.UNNAMED


def keys_of(*roles: str) -> tuple[str, ...]:
    """Names of the keys that have one of these roles: keys.ROLES says what they mean."""
    return _keys_of(catalogue(), roles)


@functools.lru_cache(maxsize=16)
def _keys_of(facts: Catalogue, roles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name, key in facts.keys.items() if key.role in roles)
