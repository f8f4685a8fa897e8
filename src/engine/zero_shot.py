"""CLIP's zero-shot head (Radford et al., 2021, arXiv:2103.00020): the class names, as texts, are the classifier.

A class's weights are the normalised mean of the normalised features of its texts, one text per template, scaled by
exp(logit_scale), which is 100 in the published models. Image features first go through CLIP's projection. All of this
is in the backbone's file; text tower, tokenizer, templates and ImageNet's class names are from open_clip.
"""

import hashlib
import logging
import re
import time
from functools import partial
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.opened import cache_folder
from ..data.sources.base import DataError, printable
from ..data.sources.lists import imagenet_synsets
from ..data.sources.text import read_lines
from ..data.store import writable
from ..data.tasks import find_task
from ..models.vit_backbones.convert import read_clip
from ..models.vit_backbones.fit import misfits
from ..models.vit_backbones.tensors import UNREADABLE, StateDict
from ..models.vit_backbones.zoo import find_weights
from ..utils.io import WriteError, waiting_for, write_atomic
from ..utils.progress import tqdm

logger = logging.getLogger(__name__)

FORMAT = 1
TOGETHER = 128  # texts per forward pass
MOST_LAYERS = 64
HEAD_DIM = 64  # channels per attention head in all of OpenAI's CLIPs; not stored in the files
TEXT_TOWER = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
NEEDED = (*TEXT_TOWER, "logit_scale", "visual.proj")

WORDNET = re.compile(r"n\d{8}")
NUMBERED = re.compile(r"(\d{3}\.|n\d{8}[-_])(?=\D)")  # CUB's "001.Black_footed_Albatross", dogs' "n02085620-Chihuahua"


def check_zero_shot(cfg: CfgNode) -> None:
    """Check the requirements of MODEL.HEAD_INIT zero_shot before data are read.

    Raises:
        FileNotFoundError: the weights, or a file named by a key, are missing.
        ValueError: the weights have no text tower, templates lack {}, or the number of names is not that of classes.
    """
    path = find_weights(cfg.DATA.FEATURE, cfg.MODEL.MODEL_ROOT, cfg.MODEL.WEIGHT_PATH)
    templates(cfg.MODEL.HEAD_TEMPLATES)
    if cfg.MODEL.HEAD_CLASS_NAMES:
        names_in(cfg.MODEL.HEAD_CLASS_NAMES, find_task(cfg.DATA.NAME).num_classes)
    _read(path)


def zero_shot_head(cfg: CfgNode, class_names: list[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The state of a ``ZeroShotHead``, float32 on the CPU, for a data set's classes; cached in DATA.CACHE_DIR.

    Args:
        device: where texts are encoded.

    Raises:
        FileNotFoundError, ValueError: as in ``check_zero_shot``, or class names have no text.
    """
    path = find_weights(cfg.DATA.FEATURE, cfg.MODEL.MODEL_ROOT, cfg.MODEL.WEIGHT_PATH)
    names, texts = spoken_names(cfg, class_names), templates(cfg.MODEL.HEAD_TEMPLATES)
    folder = cache_folder(cfg.DATA.CACHE_DIR)
    if cfg.DATA.CACHE == "off" or not writable(folder, "zero-shot heads"):
        return _encode(path, names, texts, device)
    with path.open("rb") as opened:
        weights = hashlib.file_digest(opened, "blake2b").hexdigest()
    facts = repr((FORMAT, weights, names, texts)).encode()
    file = folder / f"zero-shot-{hashlib.blake2b(facts, digest_size=10).hexdigest()}.safetensors"
    with waiting_for(file.with_name(f".{file.name}.lock"), "another process encodes class names: waiting for it"):
        try:
            head = load(file.read_bytes())
            logger.info("zero-shot head of %d classes: found on disk", len(names))
        except (FileNotFoundError, SafetensorError):
            head = _encode(path, names, texts, device)
            try:
                write_atomic(file, lambda temporary: temporary.write_bytes(save(head)))
            except WriteError as error:
                logger.warning("note: the zero-shot head is not kept: %s", error)
    return head


def templates(value: str) -> list[str]:
    """The templates of ``MODEL.HEAD_TEMPLATES``: OpenAI's 80 for ImageNet, a single text with {}, or a file's lines.

    Raises:
        FileNotFoundError: it is none of these.
        ValueError: a line lacks {}, or there are no lines.
    """
    if value == "imagenet":
        from open_clip import OPENAI_IMAGENET_TEMPLATES  # imported here: it takes seconds, and few runs need it

        return [fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES]
    if "{}" in value:
        return [value]
    lines = _lines(value, "MODEL.HEAD_TEMPLATES", "; it may also be imagenet, or a text with {} where the name goes")
    if wrong := [line for line in lines if "{}" not in line]:
        raise ValueError(f"MODEL.HEAD_TEMPLATES {value}: {wrong[0]!r} has no {{}} where the class name goes")
    return lines


def spoken_names(cfg: CfgNode, class_names: list[str]) -> list[str]:
    """Names of classes for texts: MODEL.HEAD_CLASS_NAMES, ImageNet's names, or the data set's own in plain words.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has another number of names, or a class is a WordNet id outside ImageNet.
    """
    if cfg.MODEL.HEAD_CLASS_NAMES:
        return names_in(cfg.MODEL.HEAD_CLASS_NAMES, len(class_names))
    task, ids = find_task(cfg.DATA.NAME), [name for name in class_names if WORDNET.fullmatch(name)]
    if task.group == "ImageNet" or ids:
        from open_clip import IMAGENET_CLASSNAMES

        if not ids:
            return list(IMAGENET_CLASSNAMES)
        texts = {name: IMAGENET_CLASSNAMES[label] for name, label in imagenet_synsets().items()}
        if strange := [name for name in ids if name not in texts]:
            raise ValueError(
                f"the class {strange[0]} is a WordNet id outside ImageNet's 1000 and has no name: give a file "
                "with a name for every class in MODEL.HEAD_CLASS_NAMES"
            )
        class_names = [texts.get(name, name) for name in class_names]
    elif class_names == [str(i) for i in range(len(class_names))] and task.name not in ("digits", "svhn"):
        message = (
            "note: in the zero-shot head's texts, classes are called 0 to %d; set MODEL.HEAD_CLASS_NAMES to name them"
        )
        logger.warning(message, len(class_names) - 1)
    return [NUMBERED.sub("", name, count=1).replace("_", " ").strip() for name in class_names]


def names_in(path: str, count: int) -> list[str]:
    """The lines of MODEL.HEAD_CLASS_NAMES.

    Args:
        count: the required number; 0: not known yet.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there are more or fewer.
    """
    names = _lines(path, "MODEL.HEAD_CLASS_NAMES")
    if count and len(names) != count:
        raise ValueError(f"MODEL.HEAD_CLASS_NAMES {path} has {len(names)} names for {count} classes")
    return names


def _lines(path: str, key: str, otherwise: str = "") -> list[str]:
    """The lines of a text file that are not empty."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{key} {path} is missing{otherwise}")
    try:
        lines = [line for _, line in read_lines(file)]
    except DataError as error:
        raise ValueError(f"{key}: {error}") from error
    if odd := [line for line in lines if printable(line) != line]:
        raise ValueError(f"{key} {path} is not UTF-8 text: {printable(odd[0])}")
    return lines


def _read(path: Path) -> StateDict:
    """The weights in the backbone's file, with a text tower.

    Raises:
        ValueError: it has no text tower, or cannot be read.
    """
    try:
        state = read_clip(path)
    except UNREADABLE as error:
        raise ValueError(f"{path} is broken, or not a file of OpenAI's CLIP: {error}") from error
    if missing := [part for part in NEEDED if not any(name.startswith(part) for name in state)]:
        raise ValueError(
            f"{path} is not a complete CLIP ({', '.join(missing)} missing): MODEL.HEAD_INIT zero_shot needs its text "
            "tower and projection: use OpenAI's own file (see pretrained/README.md)"
        )
    return state


@torch.no_grad()
def _encode(path: Path, names: list[str], texts: list[str], device: torch.device | str) -> dict[str, Tensor]:
    start, state = time.perf_counter(), _read(path)
    tower = text_tower(state).to(device)
    rows, each = [], max(1, TOGETHER // len(texts))
    with tqdm(desc="texts of classes", total=len(names), unit="class", delay=1, leave=False) as bar:
        for first in range(0, len(names), each):
            some = names[first : first + each]
            features = encode(tower, [text.replace("{}", name) for name in some for text in texts])
            mean = features.unflatten(0, (len(some), len(texts))).mean(1)
            rows.append(F.normalize(mean, dim=-1).cpu())
            bar.update(len(some))
    logger.info(
        "zero-shot head: %d classes in %d texts each, such as %r, in %.1f s",
        *(len(names), len(texts), texts[0].replace("{}", names[0]), time.perf_counter() - start),
    )
    return {
        "projection.weight": state["visual.proj"].float().T.contiguous(),
        "last_layer.weight": torch.cat(rows) * state["logit_scale"].float().exp(),
        "last_layer.bias": torch.zeros(len(names)),
    }


def encode(tower: nn.Module, texts: list[str]) -> Tensor:
    """Features of texts, scaled to length 1: (len(texts), embed_dim)."""
    from open_clip import tokenize

    tokens = tokenize(texts, tower.context_length).to(tower.positional_embedding.device)
    last = tokens.argmax(dim=1)  # the end token is the largest
    length = int(last.max()) + 1  # causal attention: truncating loses nothing, about 12 instead of 77
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]  # (B, length, width)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    ends = x[torch.arange(len(x), device=x.device), last]  # (B, width)
    return F.normalize(tower.ln_final(ends) @ tower.text_projection, dim=-1)


def text_tower(state: StateDict) -> nn.Module:
    """open_clip's text tower of CLIP, in float32 and eval mode.

    Raises:
        ValueError: the weights do not fit.
    """
    from open_clip import tokenize
    from open_clip.transformer import QuickGELU, TextTransformer

    own = {name: tensor.float() for name, tensor in state.items() if name.startswith(TEXT_TOWER)}
    vocabulary, width = own["token_embedding.weight"].shape
    layers = len({name.split(".")[2] for name in own if name.startswith("transformer.resblocks.")})
    if vocabulary <= (end := int(tokenize("").max())):
        raise ValueError(f"the text tower has {vocabulary} tokens, but CLIP's tokenizer has {end + 1}")
    if width % HEAD_DIM or layers > MOST_LAYERS:
        raise ValueError(f"the text tower has {layers} layers of width {width}, unlike any of OpenAI's CLIPs")
    make = partial(
        TextTransformer,
        context_length=len(own["positional_embedding"]),
        vocab_size=vocabulary,
        width=width,
        heads=width // HEAD_DIM,
        layers=layers,
        output_dim=own["text_projection"].shape[1],
        act_layer=QuickGELU,
    )
    with torch.device("meta"):
        wanted = make().state_dict()
    if wrong := misfits(wanted, own):
        raise ValueError(f"the text tower's weights do not fit: {wrong}")
    tower = make()
    tower.load_state_dict(own)
    return tower.eval()
