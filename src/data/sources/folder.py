"""Folders of class folders: the user's own images, ImageNet, and sets that come without a split.

``DATAPATH/train/<class>/*``, ``test/<class>/*`` and, if they like, ``val/<class>/*``.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import IMAGE_ENDINGS, DataError, FileSplit, Layout, Source, Split, Wanted, cut, printable, stratified
from .names import require_different, require_match
from .subsets import DRAWN, draw
from .text import check_name

# What the folder of a split may be called, in any case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# Folders that systems leave among images: Synology, macOS, QNAP, Windows, Linux.
SYSTEM_FOLDERS = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "$recycle.bin"),
    *("system volume information", "lost+found"),
}


@dataclass(frozen=True)
class Folder(Layout):
    """An image folder; its classes are the folders in train/, sorted by name; images may lie deeper.

    Without val/, a stratified part of train/ becomes it. Without test/, there is no test split.

    Attributes:
        below: folders of which one holds the data, of DATA.DATAPATH; "" is itself.
        train, val, test: the splits' folders, which may go by other names of SPLIT_NAMES; "" for none.
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
        places = [root / name for name in self.below]
        return next((here for here in places if called(here, self.train) and not classes_without_split(here)), None)

    def fits(self, here: Path, num_classes: int) -> bool:
        return not num_classes or len(class_folders(here / one_called(here, self.train))) == num_classes

    def hint(self, root: Path) -> str:
        there = folders_in(root)
        if found := [name for name in there if any(called(root / name, split) for split in SPLIT_NAMES)]:
            return f"{root / found[0]} has split folders: is that what DATA.DATAPATH should name?"
        if split_folders(root):
            return f"{root.absolute()} has no {self.train}/; the folders there are {', '.join(there)}"
        return ""

    def open(self, here: Path, wanted: Wanted) -> Source:
        wanted = replace(wanted, shots=wanted.shots or self.shots)
        roles = {"train": self.train, "val": self.val, "test": self.test}
        used = {role: one_called(here, name) for role, name in roles.items() if name}
        classes = class_folders(here / used["train"])
        require_different(classes, str(here / used["train"]))
        splits: dict[str, Split] = {}
        notes = []
        for role, folder in used.items():
            if folder:
                items, left_out = images_below(here, folder, classes, f"{used['train']}/")
                splits[role] = FileSplit(here, items)
                notes += left_out
        counts = np.bincount(splits["train"].labels, minlength=len(classes))
        if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
            some = ", ".join(empty)
            raise DataError(f"no images for class {some} in {here / used['train']}: add some, or remove the folder")
        require_classes(classes, here / used["train"])
        if unused := [name for name in folders_in(here) if name not in used.values()]:
            notes.append(f"folders of {here} that are not used: {', '.join(unused)}")
        version = f"{sum(map(len, splits.values()))} files"
        version += "".join(f", {role} is {folder}/" for role, folder in used.items() if folder and role != "train")
        if "val" not in splits and self.val_size is None and not wanted.shots and not wanted.lists:
            version += f", val is a stratified {wanted.val_fraction:g} of {used['train']}/, "
            version += f"split seed {wanted.split_seed}"
        return Source(classes, draw(splits, wanted, classes, here, self.subset, self.val_size), version, notes=notes)

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
        items, notes = images_below(here, "", classes)
        everything = FileSplit(here, items)
        test = stratified(everything.labels, round(len(everything) * self.test_share), seed=0)
        rest = np.setdiff1d(np.arange(len(everything)), test)
        splits = {"train": everything.take(rest), "test": everything.take(test)}
        said = f"{len(everything)} files, test is a stratified {self.test_share:g} of them, drawn by us with seed 0"
        drawn = draw(splits, wanted, classes, here, self.subset, self.val_size)
        return Source(classes, drawn, said, notes=notes)

    def expects(self) -> str:
        return f"{self.folder}/<class>/<image>"


@dataclass(frozen=True)
class ClassFolders(Layout):
    """The user's own class folders, without train/ or test/: both are drawn from them, and val from train.

    Each split has an image of every class that has three; one of two images is tested, a single one trains. The same
    for every SEED; DATA.SPLIT_SEED draws another val, the test set is always the same.
    """

    kind: ClassVar[str] = "folder"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        return root if classes_without_split(root) else None

    def open(self, here: Path, wanted: Wanted) -> Source:
        classes = classes_without_split(here)
        require_different(classes, str(here))
        items, notes = images_below(here, "", classes)
        require_classes(classes, here)
        everything = FileSplit(here, items)
        test = cut(everything.labels, wanted.test_fraction, seed=0, least=1)
        rest = np.setdiff1d(np.arange(len(everything)), test)
        splits = {"train": everything.take(rest), "test": everything.take(test)}
        said = f"test is a stratified {wanted.test_fraction:g} of them (DATA.TEST_FRACTION, seed 0)"
        if not wanted.shots and not wanted.lists:
            train = splits["train"]
            val = cut(train.labels, wanted.val_fraction, wanted.split_seed, least=1)
            splits["train"] = train.take(np.setdiff1d(np.arange(len(train)), val))
            splits["val"] = train.take(val)
            said += f", val a stratified {wanted.val_fraction:g} of what is left (DATA.VAL_FRACTION, split seed "
            said += f"{wanted.split_seed})"
        notes.append(f"{here} has class folders and no split of its own: {said}")
        counts = np.bincount(everything.labels, minlength=len(classes))
        if few := [name for name, count in zip(classes, counts, strict=True) if count < 3]:
            some = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
            notes.append(f"{len(few)} classes have fewer than 3 images and are not in every split: {some}")
        if any(here.name.lower() in names for names in SPLIT_NAMES.values()) and split_folders(here.parent):
            notes.append(f"{here} is itself one of the split folders in {here.parent}: should DATA.DATAPATH name that?")
        if unused := [name for name in folders_in(here) if name not in classes]:
            notes.append(f"folders of {here} without images that are not used: {', '.join(unused)}")
        splits = {name: split for name, split in splits.items() if len(split)}
        splits = draw(splits, wanted, classes, here)
        return Source(classes, splits, f"{len(everything)} files in class folders, {said}", notes=notes)

    def expects(self) -> str:
        return "<class>/<image>, to be split into train, val and test"


# ---- which folder is what


def called(here: Path, name: str) -> list[str]:
    """The folders in ``here`` that go by a split's name: "val" is also "valid" and "Validation"."""
    known = next((names for names in SPLIT_NAMES.values() if name in names), (name,))
    return [folder for folder in folders_in(here) if folder.lower() in known]


def one_called(here: Path, name: str) -> str:
    """The one folder in ``here`` that goes by a split's name; "" if there is none.

    Raises:
        DataError: there are several.
    """
    found = called(here, name)
    if len(found) > 1:
        raise DataError(f"{here} has {' and '.join(f'{folder}/' for folder in found)}: which is {name}? Keep one")
    return found[0] if found else ""


def split_folders(here: Path) -> list[str]:
    """The folders in ``here`` that go by the name of a split and hold folders."""
    return [folder for name in SPLIT_NAMES for folder in called(here, name) if folders_in(here / folder)]


def classes_without_split(here: Path) -> list[str]:
    """The class folders in ``here``, if it has some and no split: two or more with images directly in them.

    A class may be called train, if others stand beside it that are no split.
    """
    there = folders_in(here)
    if split_folders(here):
        return []
    direct = [name for name in there if _holds_image(here / name)]
    splits = [name for name in direct if any(name.lower() in names for names in SPLIT_NAMES.values())]
    if len(direct) < 2 or len(splits) > 1 or len(direct) - len(splits) < 2 * bool(splits):
        return []
    return [name for name in there if name in direct or any(map(_is_image, files_below(str(here / name))))]


def _holds_image(folder: Path) -> bool:
    return any(_is_image(entry.name) and entry.is_file() for entry in _entries(folder))


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_ENDINGS)


def folders_in(here: Path) -> list[str]:
    """Names of the folders in ``here``, sorted, without hidden ones and those that systems make."""
    found = [entry.name for entry in _entries(here) if _is_folder(entry) and entry.name.lower() not in SYSTEM_FOLDERS]
    return sorted(found)


def class_folders(here: Path) -> list[str]:
    """``folders_in`` of a folder that must have some.

    Raises:
        DataError: there are none, or one whose name cannot be stored.
    """
    found = folders_in(here)
    if not found:
        raise DataError(f"{here.absolute()} has no class folders: it must hold <class>/<image>")
    return [check_name(name, str(here)) for name in found]


def require_classes(classes: list[str], here: Path) -> None:
    """Raises DataError: there are fewer than two."""
    if len(classes) < 2:
        raise DataError(f"{here} has one class only ({classes[0]}): there is nothing to tell apart")


# ---- what is in them


def images_below(
    root: Path, split: str, classes: list[str], whose: str = "train/"
) -> tuple[list[tuple[str, int]], list[str]]:
    """(Path below ``root``, label) of every image in the class folders of ``root/split``, sorted; and notes.

    Hidden files are not looked at; other files that are no images are named in a note.

    Args:
        classes: those that may be there, in the order of labels.
        whose: the folder that has these classes, for people.

    Raises:
        DataError: no images, or a class folder that is not in ``classes``.
    """
    here = root / split
    folders = [name for name in class_folders(here) if split or name in classes]
    index = dict(zip(folders, require_match(folders, classes, str(here), whose), strict=True))
    items, others = [], []
    prefix = f"{split}/" if split else ""
    for path in files_below(str(here)):
        name, deeper, _ = path.partition("/")
        if deeper and name in index and _is_image(path):
            items.append((prefix + path, index[name]))
        else:
            others.append(prefix + printable(path))
    notes = []
    if others:
        some = ", ".join(sorted(others)[:5]) + (", ..." if len(others) > 5 else "")
        notes.append(f"{len(others)} files in {here} are no images in a class folder and are left out: {some}")
    if not items:
        raise DataError(f"{here} holds no images ({', '.join(IMAGE_ENDINGS)}) in class folders")
    return sorted(items), notes


def files_below(root: str, below: str = "", inside: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Paths below ``root`` of every file in it, behind symbolic links too, but nothing hidden, such as editors' copies.

    What cannot be read as a file ends in "(why)", so that it is named with the files that are no images.

    Args:
        inside: the folders that ``below`` is in, as (device, inode): a link to one of them has no end.
    """
    here = os.stat(os.path.join(root, below))
    inside |= {(here.st_dev, here.st_ino)}
    for entry in _entries(os.path.join(root, below)):
        path = f"{below}/{entry.name}" if below else entry.name
        try:
            facts = entry.stat()
            if not entry.is_dir():
                yield path if entry.is_file() else f"{path} (not a regular file)"
            elif (facts.st_dev, facts.st_ino) in inside:
                yield f"{path} (a link to a folder that it is in)"
            elif entry.name.lower() in SYSTEM_FOLDERS:
                yield f"{path} (a folder that a system made)"
            else:
                yield from files_below(root, path, inside)
        except FileNotFoundError:
            yield f"{path} (a link to nowhere)"
        except OSError as error:  # a link to itself, a folder that may not be read
            yield f"{path} ({error.strerror})"


def _entries(folder: str | Path) -> list[os.DirEntry]:
    """What is in a folder and is not hidden; nothing where there is no folder."""
    if not os.path.isdir(folder):
        return []
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
