"""The model zoo: the backbones that ``DATA.FEATURE`` names, and where their weights are.

To add a backbone: one row in a file of rows/, and a converter in convert/ if its file format is new.
"""

import re
from pathlib import Path

import timm

from ...utils.shipped import shipped
from .backbone import Backbone, MeanStd
from .from_timm import problem_with
from .hugging_face.checkpoint import find_tensors, read_checkpoint
from .hugging_face.place import HUB, is_checkpoint
from .refusals import unknown_backbone
from .rows import ALIASES, MODEL_ZOO


def find_backbone(name: str) -> Backbone | None:
    """The row of ``DATA.FEATURE``, or what ``hf:<...>`` names; None for ``timm:<name>``, which timm knows.

    Raises:
        ValueError: an unknown name, for which the message lists the known ones; a checkpoint that cannot be.
    """
    name = ALIASES.get(name, name)
    if is_checkpoint(name):
        try:
            return read_checkpoint(name)
        except ValueError as error:
            raise ValueError(f"DATA.FEATURE {name!r}: {error}") from error
    if name.startswith("timm:"):
        if problem := problem_with(name[len("timm:") :]):
            raise ValueError(f"DATA.FEATURE {name!r}: {problem}")
        return None
    if name not in MODEL_ZOO:
        raise ValueError(unknown_backbone(name, MODEL_ZOO))
    return MODEL_ZOO[name]


def find_weights(name: str, root: Path, weight_path: str = "") -> Path | None:
    """The backbone's weights file; None where timm's own cache has it or will fetch it.

    Raises:
        FileNotFoundError: it is missing; the message says what to download, from where, and where to put it.
    """
    row = find_backbone(name)
    if weight_path:
        if not Path(weight_path).is_file():
            raise FileNotFoundError(f"MODEL.WEIGHT_PATH {weight_path} is missing")
        return Path(weight_path)
    if row is None:
        return None
    if is_checkpoint(name):
        return find_tensors(name)
    for file in row.files:
        if (path := in_repository(Path(root) / file)).is_file():
            return path
    where = Path(root).absolute() / row.files[0]
    if row.url.startswith("http"):
        get = f"put {row.url} at {where}"
    elif (own := shipped("pretrained") / row.files[0]).is_file():
        get = f"{where} is not there, but it comes with ViTune: set MODEL.MODEL_ROOT {own.parent}"
    else:
        get = f"{where} is not there; {row.url}"
    raise FileNotFoundError(f"the weights of {name} are missing: {get} (see pretrained/README.md)")


def in_repository(path: Path) -> Path:
    """A relative path as it is if something is there, else taken from where ViTune's own ``pretrained`` is."""
    return path if path.is_absolute() or path.exists() else shipped("pretrained").parent / path


def patch_size(row: Backbone) -> int:
    """Side of a row's square patches, in pixels; 0 for networks without patches."""
    named = re.search(r"patch(\d+)", row.arch)
    return row.arguments.get("patch_size") or (int(named[1]) if named else 0)


def norm_of_all(name: str) -> bool:
    """Whether a backbone's final norm, which follows an average here, was pre-trained on every token."""
    row = find_backbone(name)
    return row is not None and row.norm_of_all


def licence(name: str) -> str:
    """Of a backbone's weights, as the Hugging Face Hub calls it; "" where none is stated."""
    row = find_backbone(name)
    return row.licence if row else timm.get_pretrained_cfg(name[len("timm:") :]).license or ""


def hub_id(name: str) -> str:
    """What the Hugging Face Hub calls a backbone's weights; "" where it is not known to have them."""
    if name.startswith("timm:"):
        return f"timm/{name[len('timm:') :]}"
    url = find_backbone(name).url
    return url.removeprefix(HUB) if url.startswith(HUB) else ""


def input_config(name: str) -> tuple[MeanStd, str]:
    """(Mean, standard deviation) per RGB channel in [0, 1] of the images the backbone was pre-trained on, and how those
    were resized: "bilinear" or "bicubic"."""
    row = find_backbone(name)
    if row is not None:
        return row.mean_std, row.interpolation
    pretrained = timm.get_pretrained_cfg(name[len("timm:") :])
    interpolation = pretrained.interpolation if pretrained.interpolation == "bilinear" else "bicubic"
    return (tuple(pretrained.mean), tuple(pretrained.std)), interpolation
