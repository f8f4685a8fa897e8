"""The settings of every run of a fit: the shipped config ``folder``, lists of images, a network, and the user's own."""

import os
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from ...configs.config import load_cfg
from ...utils.io import write_atomic
from .images import Images
from .request import CONFIG

CLASSES = "classes.txt"  # beside the lists, where DATA.NAME lists looks for it


def write_list(images: Images, chosen: Sequence[int], path: Path) -> Path:
    """A list file of these images, and the class names beside it; names need not be UTF-8."""
    lines = "".join(f"{images.files[i]} {images.labels[i]}\n" for i in chosen)
    names = "".join(f"{name}\n" for name in images.class_names)
    for file, text in {path: lines, path.with_name(CLASSES): names}.items():
        data = os.fsencode(text)
        if not file.is_file() or file.read_bytes() != data:
            write_atomic(file, lambda temporary, data=data: temporary.write_bytes(data))
    return path


def settings(
    images: Images, lists: dict[str, Path], feature: str, size: int, own: Sequence[str], *more: object
) -> CfgNode:
    """The config of a run.

    Args:
        lists: "train", and what else there is of "val" and "test".
        own: the user's KEY VALUE pairs.
        more: further pairs, which come last.
    """
    pairs = ["DATA.NAME", "lists", "DATA.DATAPATH", str(images.root)]
    for name, path in lists.items():
        pairs += [f"DATA.{name.upper()}_LIST", str(path.absolute())]
    pairs += ["DATA.UNMEASURED", str(list(lists) == ["train"])]
    pairs += [*own, "DATA.FEATURE", feature, "DATA.CROPSIZE", str(size), *map(str, more)]
    return load_cfg(CONFIG, pairs)


def value(own: Sequence[str], key: str, default: str = "") -> str:
    """The last value of a key among KEY VALUE pairs."""
    found = [text for name, text in zip(own[::2], own[1::2], strict=False) if name == key]
    return found[-1] if found else default
