"""The user's own images: ``DATAPATH/train/<class>/*``, ``test/<class>/*`` and, if they like, ``val/<class>/*``."""

import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np

from .base import IMAGE_ENDINGS, DataError, Source, files_split, stratified

logger = logging.getLogger(__name__)


def Folder(root: Path, folder: str, val_fraction: float) -> Source:
    """An image folder; its classes are the folders in train/, sorted by name, also where they lie deeper.

    Without val/, a stratified ``val_fraction`` of train/ becomes it (seed 0). Without test/, there is no test split.

    Raises:
        DataError: no train/, no images, or classes in val/ or test/ that train/ does not have.
    """
    root = Path(root)
    if not (root / "train").is_dir():
        raise DataError(
            f"{root.absolute()} has no folder train/: DATA.DATAPATH must hold train/<class>/<image>, "
            "test/<class>/<image> and optionally val/<class>/<image>"
        )
    classes = sorted(p.name for p in (root / "train").iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {name: _items(root, name, classes) for name in ("train", "val", "test") if (root / name).is_dir()}
    for name, items in found.items():
        if not items:
            raise DataError(f"{root / name} holds no images ({', '.join(IMAGE_ENDINGS)}) in class folders")
    counts = Counter(label for _, label in found["train"])
    if empty := [c for i, c in enumerate(classes) if not counts[i]]:
        raise DataError(f"no images for class {', '.join(empty)} in {root / 'train'}: add some, or remove the folder")
    if len(classes) < 2:
        raise DataError(f"{root / 'train'} has one class only ({classes[0]}): there is nothing to tell apart")
    splits = {name: files_split(root, items) for name, items in found.items()}
    version = f"{sum(map(len, splits.values()))} files"
    if "val" not in splits:
        train = splits["train"]
        val = stratified(train.labels, round(len(train) * val_fraction), seed=0)
        splits["train"], splits["val"] = train.take(np.setdiff1d(np.arange(len(train)), val)), train.take(val)
        version += f", val is a stratified {val_fraction:g} of train/, split seed 0"
    return Source(classes, splits, version)


def _items(root: Path, split: str, classes: list[str]) -> list[tuple[str, int]]:
    here = root / split
    folders = sorted(p.name for p in here.iterdir() if p.is_dir() and not p.name.startswith("."))
    if new := [name for name in folders if name not in classes]:
        raise DataError(f"{here} has classes that {root / 'train'} does not have: {', '.join(new)}")
    index, items, others = {name: i for i, name in enumerate(classes)}, [], []
    for path in _visible_files(here):
        parts = path.relative_to(here).parts
        if len(parts) > 1 and path.suffix.lower() in IMAGE_ENDINGS and path.is_file():
            items.append((path.relative_to(root).as_posix(), index[parts[0]]))
        else:
            others.append(path.relative_to(root).as_posix())
    if others:
        some = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        logger.warning(
            "note: %d files in %s are no images in a class folder and are left out: %s", len(others), here, some
        )
    return items


def _visible_files(here: Path) -> list[Path]:
    """Every file below, behind symbolic links too, but nothing hidden, such as editors' copies."""
    found = []
    for folder, below, files in os.walk(here, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if not name.startswith(".")]
    return sorted(found)
