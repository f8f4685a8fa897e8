"""Folders of class folders: the user's own images, ImageNet, and sets without a split.

``DATAPATH/train/<class>/*``, ``test/<class>/*`` and optionally ``val/<class>/*``.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import IMAGE_ENDINGS, DataError, FileSplit, Layout, Source, Split, Wanted, cut, one_line, stratified
from .names import require_different, require_match
from .subsets import DRAWN, draw
from .text import check_name

# Possible names of a split's folder, in any case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# Folders that operating systems create: Synology, macOS, QNAP, Windows, Linux.
SYSTEM_FOLDERS = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "$recycle.bin"),
    *("system volume information", "lost+found"),
}


@dataclass(frozen=True)
class Folder(Layout):
    """An image folder; its classes are the folders in train/, sorted by name; images may be nested deeper.

    Without val/, a stratified part of train/ is used. Without test/, there is no test split.

    Attributes:
        below: folders in DATA.DATAPATH, one of which holds the data; "" is DATA.DATAPATH itself.
        train, val, test: the splits' folders, or other names from SPLIT_NAMES; "" for none.
        subset, val_size: see ``subsets.draw``.
        shots: the meaning of DATA.SHOTS 0.
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
        return next(
            (folder for folder in places if called(folder, self.train) and not classes_without_split(folder)), None
        )

    def fits(self, folder: Path, num_classes: int) -> bool:
        return not num_classes or len(class_folders(folder / one_called(folder, self.train))) == num_classes

    def hint(self, root: Path) -> str:
        folders = folders_in(root)
        if candidates := [name for name in folders if any(called(root / name, split) for split in SPLIT_NAMES)]:
            return f"{root / candidates[0]} has split folders: should DATA.DATAPATH be that folder?"
        if split_folders(root):
            return f"{root.absolute()} has no {self.train}/; it has the folders {', '.join(folders)}"
        return ""

    def open(self, folder: Path, wanted: Wanted) -> Source:
        wanted = replace(wanted, shots=wanted.shots or self.shots)
        roles = {"train": self.train, "val": self.val, "test": self.test}
        used = {role: one_called(folder, name) for role, name in roles.items() if name}
        classes = class_folders(folder / used["train"])
        require_different(classes, str(folder / used["train"]))
        splits: dict[str, Split] = {}
        notes = []
        for role, subfolder in used.items():
            if subfolder:
                items, left_out = images_below(folder, subfolder, classes, f"{used['train']}/")
                splits[role] = FileSplit(folder, items)
                notes += left_out
        counts = np.bincount(splits["train"].labels, minlength=len(classes))
        if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
            some = ", ".join(empty)
            train = folder / used["train"]
            raise DataError(f"no images for class {some} in {train}: add some, or remove the folder")
        require_classes(classes, folder / used["train"])
        if unused := [name for name in folders_in(folder) if name not in used.values()]:
            notes.append(f"folders of {folder} that are not used: {', '.join(unused)}")
        version = f"{sum(map(len, splits.values()))} files"
        version += "".join(f", {role} is {name}/" for role, name in used.items() if name and role != "train")
        if "val" not in splits and self.val_size is None and not wanted.shots and not wanted.lists:
            version += f", val is a stratified {wanted.val_fraction:g} of {used['train']}/, "
            version += f"split seed {wanted.split_seed}"
        return Source(classes, draw(splits, wanted, classes, folder, self.subset, self.val_size), version, notes=notes)

    def expects(self) -> str:
        prefix = f"{self.below[0]}/" if self.below[0] else ""
        layout = f"{prefix}{self.train}/<class>/<image>"
        layout += f", {prefix}{self.test}/<class>/<image>" if self.test else ""
        return layout + (f" and optionally {prefix}{self.val}/<class>/<image>" if self.val else "")


@dataclass(frozen=True)
class Unsplit(Layout):
    """One folder of class folders; a stratified part of the images is the test set, the same on every machine."""

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

    def open(self, folder: Path, wanted: Wanted) -> Source:
        classes = class_folders(folder)
        items, notes = images_below(folder, "", classes)
        everything = FileSplit(folder, items)
        test = stratified(everything.labels, round(len(everything) * self.test_share), seed=0)
        rest = np.setdiff1d(np.arange(len(everything)), test)
        splits = {"train": everything.take(rest), "test": everything.take(test)}
        split = f"{len(everything)} files, test is a stratified {self.test_share:g} of them, drawn with seed 0"
        drawn = draw(splits, wanted, classes, folder, self.subset, self.val_size)
        return Source(classes, drawn, split, notes=notes)

    def expects(self) -> str:
        return f"{self.folder}/<class>/<image>"


@dataclass(frozen=True)
class ClassFolders(Layout):
    """The user's class folders, without train/ or test/: test is drawn from all images, then val from train.

    Classes with three or more images are in every split; of two images, one is for testing; a single one trains.
    The test set is always the same; val depends on DATA.SPLIT_SEED; neither depends on SEED.
    """

    kind: ClassVar[str] = "folder"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        return root if classes_without_split(root) else None

    def open(self, folder: Path, wanted: Wanted) -> Source:
        classes = classes_without_split(folder)
        require_different(classes, str(folder))
        items, notes = images_below(folder, "", classes)
        require_classes(classes, folder)
        everything = FileSplit(folder, items)
        test = cut(everything.labels, wanted.test_fraction, seed=0, least=1)
        rest = np.setdiff1d(np.arange(len(everything)), test)
        splits = {"train": everything.take(rest), "test": everything.take(test)}
        origin = f"test is a stratified {wanted.test_fraction:g} of them (DATA.TEST_FRACTION, seed 0)"
        if not wanted.shots and not wanted.lists:
            train = splits["train"]
            val = cut(train.labels, wanted.val_fraction, wanted.split_seed, least=1)
            splits["train"] = train.take(np.setdiff1d(np.arange(len(train)), val))
            splits["val"] = train.take(val)
            origin += f", val a stratified {wanted.val_fraction:g} of the rest (DATA.VAL_FRACTION, split seed "
            origin += f"{wanted.split_seed})"
        notes.append(f"{folder} has class folders without a split of its own: {origin}")
        counts = np.bincount(everything.labels, minlength=len(classes))
        if few := [name for name, count in zip(classes, counts, strict=True) if count < 3]:
            some = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
            notes.append(f"{len(few)} classes have fewer than 3 images and are not in every split: {some}")
        if any(folder.name.lower() in names for names in SPLIT_NAMES.values()) and split_folders(folder.parent):
            notes.append(f"{folder} is a split folder of {folder.parent}: should DATA.DATAPATH be that folder?")
        if unused := [name for name in folders_in(folder) if name not in classes]:
            notes.append(f"folders of {folder} not used because they have no images: {', '.join(unused)}")
        splits = {name: split for name, split in splits.items() if len(split)}
        splits = draw(splits, wanted, classes, folder)
        return Source(classes, splits, f"{len(everything)} files in class folders, {origin}", notes=notes)

    def expects(self) -> str:
        return "<class>/<image>, which ViTune splits into train, val and test"


# ---- which folder is which


def called(folder: Path, name: str) -> list[str]:
    """The folders in ``folder`` with a split's name or a variant: "val" is also "valid" and "Validation"."""
    variants = next((names for names in SPLIT_NAMES.values() if name in names), (name,))
    return [entry for entry in folders_in(folder) if entry.lower() in variants]


def one_called(folder: Path, name: str) -> str:
    """The only folder in ``folder`` with a split's name; "" if there is none.

    Raises:
        DataError: there are several.
    """
    matches = called(folder, name)
    if len(matches) > 1:
        choices = " and ".join(f"{entry}/" for entry in matches)
        raise DataError(f"{folder} has {choices}, which could both be {name}: keep one")
    return matches[0] if matches else ""


def split_folders(folder: Path) -> list[str]:
    """The folders in ``folder`` that have a split's name and contain folders."""
    return [entry for name in SPLIT_NAMES for entry in called(folder, name) if folders_in(folder / entry)]


def classes_without_split(folder: Path) -> list[str]:
    """The class folders in ``folder``, if there is no split: two or more must have images directly in them.

    A class may be called train if there are at least two others.
    """
    folders = folders_in(folder)
    if split_folders(folder):
        return []
    direct = [name for name in folders if _holds_image(folder / name)]
    splits = [name for name in direct if any(name.lower() in names for names in SPLIT_NAMES.values())]
    if len(direct) < 2 or len(splits) > 1 or len(direct) - len(splits) < 2 * bool(splits):
        return []
    return [name for name in folders if name in direct or any(map(_is_image, files_below(str(folder / name))))]


def _holds_image(folder: Path) -> bool:
    return any(_is_image(entry.name) and entry.is_file() for entry in _entries(folder))


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_ENDINGS)


def folders_in(folder: Path) -> list[str]:
    """Sorted names of the folders in ``folder``, without hidden and system folders."""
    folders = [
        entry.name for entry in _entries(folder) if _is_folder(entry) and entry.name.lower() not in SYSTEM_FOLDERS
    ]
    return sorted(folders)


def class_folders(folder: Path) -> list[str]:
    """``folders_in`` of a folder that must contain some.

    Raises:
        DataError: there are none, or a name cannot be stored.
    """
    folders = folders_in(folder)
    if not folders:
        raise DataError(f"{folder.absolute()} has no class folders: it must hold <class>/<image>")
    return [check_name(name, str(folder)) for name in folders]


def require_classes(classes: list[str], folder: Path) -> None:
    """Raises DataError: there are fewer than two."""
    if len(classes) < 2:
        raise DataError(f"{folder} has only one class ({classes[0]}): there is nothing to classify")


# ---- their images


def images_below(
    root: Path, split: str, classes: list[str], whose: str = "train/"
) -> tuple[list[tuple[str, int]], list[str]]:
    """(Path below ``root``, label) of every image in the class folders of ``root/split``, sorted; and notes.

    Hidden files are ignored; other files that are not images are listed in a note.

    Args:
        classes: the allowed classes, in label order.
        whose: the folder that defines these classes, for messages.

    Raises:
        DataError: there are no images, or a class folder is not in ``classes``.
    """
    folder = root / split
    folders = [name for name in class_folders(folder) if split or name in classes]
    index = dict(zip(folders, require_match(folders, classes, str(folder), whose), strict=True))
    items, others = [], []
    prefix = f"{split}/" if split else ""
    for path in files_below(str(folder)):
        name, deeper, _ = path.partition("/")
        if deeper and name in index and _is_image(path):
            items.append((prefix + path, index[name]))
        else:
            others.append(prefix + one_line(path))
    notes = []
    if others:
        some = ", ".join(sorted(others)[:5]) + (", ..." if len(others) > 5 else "")
        notes.append(f"{len(others)} files in {folder} are not images in class folders and are left out: {some}")
    if not items:
        raise DataError(f"{folder} holds no images ({', '.join(IMAGE_ENDINGS)}) in class folders")
    return sorted(items), notes


def files_below(root: str, below: str = "", inside: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Paths of all files below ``root``, relative to it; follows symbolic links, skips hidden files.

    Entries that cannot be read as files get a suffix "(why)", so that they are listed as not being images.

    Args:
        inside: (device, inode) of the folders that contain ``below``; a link to one of them would be endless.
    """
    folder = os.stat(os.path.join(root, below))
    inside |= {(folder.st_dev, folder.st_ino)}
    for entry in _entries(os.path.join(root, below)):
        path = f"{below}/{entry.name}" if below else entry.name
        try:
            facts = entry.stat()
            if not entry.is_dir():
                yield path if entry.is_file() else f"{path} (not a regular file)"
            elif (facts.st_dev, facts.st_ino) in inside:
                yield f"{path} (a link to a folder that contains it)"
            elif entry.name.lower() in SYSTEM_FOLDERS:
                yield f"{path} (a system folder)"
            else:
                yield from files_below(root, path, inside)
        except FileNotFoundError:
            yield f"{path} (a link to nowhere)"
        except OSError as error:  # a link to itself, a folder that may not be read
            yield f"{path} ({error.strerror})"


def _entries(folder: str | Path) -> list[os.DirEntry]:
    """The entries of a folder that are not hidden; none if there is no folder."""
    if not os.path.isdir(folder):
        return []
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
