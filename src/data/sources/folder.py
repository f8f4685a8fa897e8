"""Folders of class folders: the user's own images, ImageNet, and sets that come without a split.

``DATAPATH/train/<class>/*``, ``test/<class>/*`` and, if they like, ``val/<class>/*``.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import IMAGE_ENDINGS, DataError, FileSplit, Layout, Source, Split, Wanted, stratified
from .subsets import DRAWN, draw

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder(Layout):
    """An image folder; its classes are the folders in train/, sorted by name; images may lie deeper.

    Without val/, a stratified part of train/ becomes it (seed 0). Without test/, there is no test split.

    Attributes:
        below: folders of which one holds the data, of DATA.DATAPATH; "" is itself.
        train, val, test: the splits' folders; "" for none.
        subset, val_size: see ``subsets.draw``.
        shots: what DATA.SHOTS 0 means.
    """

    below: tuple[str, ...] = ("",)
    train: str = "train"
    val: str = "val"
    test: str = "test"
    subset: int = 0
    val_size: float | None = None
    shots: int = 0
    kind: ClassVar[str] = "folder"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        return next((root / name for name in self.below if (root / name / self.train).is_dir()), None)

    def fits(self, here: Path, num_classes: int) -> bool:
        return not num_classes or len(class_folders(here / self.train)) == num_classes

    def open(self, here: Path, wanted: Wanted) -> Source:
        wanted = replace(wanted, shots=wanted.shots or self.shots)
        classes = class_folders(here / self.train)
        found = {"train": images_below(here, self.train, classes)}
        for name, folder in (("val", self.val), ("test", self.test)):
            if folder and (here / folder).is_dir():
                found[name] = images_below(here, folder, classes)
        counts = np.bincount([label for _, label in found["train"]], minlength=len(classes))
        if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
            some = ", ".join(empty)
            raise DataError(f"no images for class {some} in {here / self.train}: add some, or remove the folder")
        if len(classes) < 2:
            raise DataError(f"{here / self.train} has one class only ({classes[0]}): there is nothing to tell apart")
        splits: dict[str, Split] = {name: FileSplit(here, items) for name, items in found.items()}
        version = f"{sum(map(len, splits.values()))} files"
        if "val" not in splits and self.val_size is None and not wanted.shots:
            version += f", val is a stratified {wanted.val_fraction:g} of {self.train}/, split seed {wanted.split_seed}"
        return Source(classes, draw(splits, wanted, classes, here, self.subset, self.val_size), version)

    def expects(self) -> str:
        folder = f"{self.below[0]}/" if self.below[0] else ""
        said = f"{folder}{self.train}/<class>/<image>"
        said += f", {folder}{self.test}/<class>/<image>" if self.test else ""
        return said + (f" and optionally {folder}{self.val}/<class>/<image>" if self.val else "")


@dataclass(frozen=True)
class Unsplit(Layout):
    """One folder of class folders: a stratified part of the images is the test set, the same on every machine."""

    folder: str
    test_share: float
    subset: int = 0
    val_size: float | None = None
    kind: ClassVar[str] = "folder"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        if root.name == self.folder and root.is_dir():
            return root
        return root / self.folder if (root / self.folder).is_dir() else None

    def open(self, here: Path, wanted: Wanted) -> Source:
        classes = class_folders(here)
        everything = FileSplit(here, images_below(here, "", classes))
        test = stratified(everything.labels, round(len(everything) * self.test_share), seed=0)
        rest = np.setdiff1d(np.arange(len(everything)), test)
        splits = {"train": everything.take(rest), "test": everything.take(test)}
        said = f"{len(everything)} files, test is a stratified {self.test_share:g} of them, drawn by us with seed 0"
        return Source(classes, draw(splits, wanted, classes, here, self.subset, self.val_size), said)

    def expects(self) -> str:
        return f"{self.folder}/<class>/<image>"


def class_folders(here: Path) -> list[str]:
    """Names of the folders in ``here``, sorted.

    Raises:
        DataError: there are none.
    """
    found = sorted(entry.name for entry in os.scandir(here) if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise DataError(f"{here.absolute()} has no class folders: it must hold <class>/<image>")
    return found


def images_below(root: Path, split: str, classes: list[str]) -> list[tuple[str, int]]:
    """(Path below ``root``, label) of every image in the class folders of ``root/split``, sorted.

    Hidden files are not looked at; other files that are no images are named.

    Raises:
        DataError: no images, or a class folder that is not in ``classes``.
    """
    here = root / split
    index = {name: label for label, name in enumerate(classes)}
    if new := [name for name in class_folders(here) if name not in index]:
        raise DataError(f"{here} has classes that train/ does not have: {', '.join(new)}")
    items, others = [], []
    prefix = f"{split}/" if split else ""
    for path in files_below(str(here)):
        name, deeper, _ = path.partition("/")
        if deeper and path.lower().endswith(IMAGE_ENDINGS):
            items.append((prefix + path, index[name]))
        else:
            others.append(prefix + path)
    if others:
        some = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        said = "note: %d files in %s are no images in a class folder and are left out: %s"
        logger.warning(said, len(others), here, some)
    if not items:
        raise DataError(f"{here} holds no images ({', '.join(IMAGE_ENDINGS)}) in class folders")
    return sorted(items)


def files_below(root: str, below: str = "") -> Iterator[str]:
    """Paths below ``root`` of every file in it, behind symbolic links too, but nothing hidden, such as editors' copies.

    A link to nowhere ends in "(a link to nowhere)", so that it is named with the files that are no images.
    """
    for entry in os.scandir(os.path.join(root, below)):
        if entry.name.startswith("."):
            continue
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            yield from files_below(root, path)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            yield f"{path} (a link to nowhere)"
        else:
            yield path
