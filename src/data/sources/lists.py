"""Lists of images: NOAH's few-shot splits, the ImageNet variants, and the user's own lists.

Few-shot (Zhang et al., 2022, arXiv:2206.04673): ``<set>/annotations/train_meta.list.num_shot_<k>.seed_<s>``,
``val_meta.list`` and ``test_meta.list``, lines "<image> <label>", images below ``<set>/images`` or ``<set>``.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import (
    DataError,
    FileSplit,
    Layout,
    Source,
    Split,
    Wanted,
    backslash_hint,
    count_classes,
    require_files,
    shown,
)
from .folder import class_folders, images_below
from .list_file import find_list, is_number, read_list
from .names import require_match
from .text import read_names

logger = logging.getLogger(__name__)

ROOTS = ("images", "", "train", "val", "..", "../images")  # folders, in the data set's, that paths may be relative to


@dataclass(frozen=True)
class FewShotLists(Layout):
    """A few-shot set: DATA.SHOTS images of each class from list DATA.SPLIT_SEED, one of 0, 1 and 2.

    Attributes:
        folders: possible names of its folder.
        images: folders that the lists' paths may be relative to, in addition to ROOTS.
        shots: the meaning of DATA.SHOTS 0.
        test: a folder of class folders named by WordNet ids, the test set if there is no test list.
    """

    folders: tuple[str, ...]
    images: tuple[str, ...] = ()
    shots: int = 16
    test: str = ""
    kind: ClassVar[str] = "lists"
    takes: ClassVar[tuple[str, ...]] = ("SHOTS", "TRAIN_LIST", "VAL_LIST", "TEST_LIST")

    def find(self, root: Path) -> Path | None:
        places = [root / name for name in self.folders] + [root] * (root.name in self.folders)
        return next((folder for folder in places if (folder / "annotations").is_dir()), None)

    def open(self, folder: Path, wanted: Wanted) -> Source:
        lists = folder / "annotations"
        shots = wanted.shots or self.shots
        train = lists / f"train_meta.list.num_shot_{shots}.seed_{wanted.split_seed}"
        paths = {"train": train, "val": lists / "val_meta.list", "test": lists / "test_meta.list"}
        given = {name: find_list(path, folder) for name, path in wanted.lists.items()}
        if not train.is_file() and "train" not in given:
            pairs = sorted(set(re.findall(r"num_shot_(\d+)\.seed_(\d+)", " ".join(os.listdir(lists)))))
            choices = ", ".join(f"{k} shots with seed {s}" for k, s in sorted(pairs, key=lambda x: tuple(map(int, x))))
            raise DataError(
                f"{train.absolute()} is missing (DATA.SHOTS {shots}, DATA.SPLIT_SEED {wanted.split_seed}); available: "
                + (choices or "no such list")
            )
        existing = {name: path for name, path in (paths | given).items() if name in given or path.is_file()}
        version = f"few-shot lists {folder.name}, {shots} shots, seed {wanted.split_seed}"
        source = _open_lists(folder, existing, self.images, version)
        if self.test and "test" not in existing and (folder / self.test).is_dir():
            items, notes = images_below(folder, self.test, list(imagenet_synsets()), "ImageNet")
            source.splits["test"] = FileSplit(folder, items)
            source.notes += notes
        return source

    def expects(self) -> str:
        return (
            f"{self.folders[0]}/annotations/ with NOAH's lists (train_meta.list.num_shot_<k>.seed_<s>, val_meta.list, "
            f"test_meta.list) and the images in {'/'.join(filter(None, (self.folders[0], *self.images[:1])))}/"
        )


@dataclass(frozen=True)
class OwnLists(Layout):
    """The lists in DATA.TRAIN_LIST, DATA.VAL_LIST and DATA.TEST_LIST; paths are relative to DATA.DATAPATH.

    Class names are the lines of classes.txt beside the training list, if there is one. A list in another folder may
    number classes differently, given its own classes.txt.
    """

    kind: ClassVar[str] = "lists"
    takes: ClassVar[tuple[str, ...]] = ("TRAIN_LIST", "VAL_LIST", "TEST_LIST")

    def find(self, root: Path) -> Path:
        return root

    def fits(self, folder: Path, num_classes: int) -> bool:
        return False  # unknown until a list is named

    def open(self, folder: Path, wanted: Wanted) -> Source:
        if "train" not in wanted.lists:
            raise DataError("DATA.TRAIN_LIST is not set: it must name a file with lines '<image> <label>'")
        paths = {name: find_list(path, folder) for name, path in wanted.lists.items()}
        source = _open_lists(folder, paths, (), "lists " + ", ".join(path.name for path in paths.values()))
        named = {name: path.parent / "classes.txt" for name, path in paths.items()}
        if named["train"].is_file():
            source.class_names = read_names(named["train"])
            for name, file in named.items():
                if file != named["train"] and file.is_file():
                    _relabel(source.splits[name], read_names(file), source.class_names, file)
        return source

    def expects(self) -> str:
        return "the images in the files named by DATA.TRAIN_LIST, DATA.VAL_LIST and DATA.TEST_LIST"


@dataclass(frozen=True)
class ImageNetVariant(Layout):
    """A test set with ImageNet's classes, or some of them: ImageNet-V2, -R, -A and -Sketch.

    Class folders, or a list ``annotations/val_meta*.list``. Labels are ImageNet's, 0..999, even if a list numbers only
    the classes that occur; ``class_mask`` says which these are.

    Attributes:
        folders: possible names of its folder.
        numbered: class folders are named by label, not by WordNet id.
    """

    folders: tuple[str, ...]
    numbered: bool = False
    kind: ClassVar[str] = "lists"
    takes: ClassVar[tuple[str, ...]] = ("TEST_LIST",)

    def find(self, root: Path) -> Path | None:
        places = [root / name for name in self.folders] + [root] * (root.name in self.folders)
        return next((folder for folder in places if folder.is_dir()), None)

    def open(self, folder: Path, wanted: Wanted) -> Source:
        synsets = imagenet_synsets()
        listed = sorted((folder / "annotations").glob("val_meta*")) if (folder / "annotations").is_dir() else []
        notes: list[str] = []
        path = find_list(wanted.lists["test"], folder) if "test" in wanted.lists else next(iter(listed), None)
        if path is not None:
            items = read_list(path)
            root = _root_of(folder, items, (), str(path))
            items, listed_in = _original_labels(items, synsets, path), f"list {path.name}"
        else:
            root, folders = folder, class_folders(folder)
            numbered = {name: int(name) for name in folders if is_number(name)}
            label = {name: (numbered if self.numbered else synsets).get(name, -1) for name in folders}
            if unknown := [name for name, number in label.items() if not 0 <= number < len(synsets)]:
                raise DataError(f"{folder} has folders that are not ImageNet classes: {', '.join(unknown[:5])}")
            images, notes = images_below(folder, "", folders)
            items = [(image, label[folders[i]]) for image, i in images]
            listed_in = "class folders"
        require_files(root, items, listed_in)
        test = FileSplit(root, items)
        present = np.unique(test.labels)
        mask = None if len(present) == len(synsets) else present
        names = list(imagenet_names())
        return Source(names, {"test": test}, f"{folder.name}, {listed_in}, {len(present)} classes", mask, notes)

    def expects(self) -> str:
        inside = "<label>" if self.numbered else "<WordNet id>"
        return f"{self.folders[0]}/{inside}/<image>, or {self.folders[0]}/annotations/val_meta.list and its images"


def _relabel(split: Split, names: list[str], classes: list[str], file: Path) -> None:
    """Convert the labels of a split, which index ``names``, to indices into ``classes``.

    Raises:
        DataError: one of its classes is not in ``classes``.
    """
    if len(wrong := np.flatnonzero(split.labels >= len(names))):
        raise DataError(f"{file} names {len(names)} classes, but {split.keys[wrong[0]]} has {split.labels[wrong[0]]}")
    used = np.unique(split.labels)
    index = np.zeros(len(names), int)
    index[used] = require_match([names[label] for label in used], classes, str(file), "the training list's classes.txt")
    split.labels = index[split.labels]


def imagenet_synsets() -> dict[str, int]:
    """WordNet id -> ImageNet's label, 0..999."""
    from timm.data import ImageNetInfo

    return {name: label for label, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def imagenet_names() -> list[str]:
    """ImageNet's 1000 class names in label order."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(i) for i in range(info.num_classes())]


def _original_labels(items: list[tuple[str, int]], synsets: dict[str, int], path: Path) -> list[tuple[str, int]]:
    """The list with ImageNet's labels, if the paths contain WordNet ids."""
    original = [next((synsets[part] for part in image.split("/") if part in synsets), None) for image, _ in items]
    if None in original:  # no ids to compare with
        return items
    projected = {label: i for i, label in enumerate(sorted(set(original)))}
    for numbers in (lambda label: label, projected.get):
        if all(label == numbers(true) for (_, label), true in zip(items, original, strict=True)):
            return [(image, true) for (image, _), true in zip(items, original, strict=True)]
    wrong = next(i for i, (_, label) in enumerate(items) if label not in (original[i], projected[original[i]]))
    raise DataError(
        f"{path}: labels are neither ImageNet's nor indices into the classes that occur, for example image "
        f"{wrong + 1}, {items[wrong][0]} {items[wrong][1]}, which is class {original[wrong]}"
    )


def _open_lists(folder: Path, paths: dict[str, Path], images: tuple[str, ...], version: str) -> Source:
    splits, notes = {}, []
    for name, path in paths.items():
        items = read_list(path)
        once = list(dict.fromkeys(items))
        if len(once) < len(items):
            notes.append(f"{path.name} lists {len(items) - len(once)} images more than once; each is used once")
        root = _root_of(folder, once, images, str(path))
        require_files(root, once, str(path))
        splits[name] = FileSplit(root, once)
    return Source(
        [str(i) for i in range(count_classes(splits, ", ".join(map(str, paths.values()))))],
        splits,
        version,
        notes=notes,
    )


def _root_of(folder: Path, items: list[tuple[str, int]], images: tuple[str, ...], listed_in: str) -> Path:
    """The folder that a list's paths are relative to: the one with most of a sample of them."""
    roots = [folder / name for name in dict.fromkeys((*images, *ROOTS))]
    some = items[:: max(1, len(items) // 50)]
    counts = [sum(os.path.isfile(root / image) for image, _ in some) for root in roots]
    if not any(counts):
        tried = ", ".join(str(root) for root in roots)
        first = shown(items[0][0]) + backslash_hint([items[0][0]])
        raise DataError(f"no image listed in {listed_in}, such as {first}, is below any of {tried}")
    return roots[int(np.argmax(counts))]
