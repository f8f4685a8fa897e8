"""What is fitted: images and their targets, from class folders or a CSV.

This is the one place that knows kinds of target. Today there is one, a class per image; another kind adds its columns
to ``KINDS`` and its reading here, and what follows asks ``Images.kind``.
"""

import csv
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...data.sources.base import DataError, printable, require_files, shown
from ...data.sources.folder import (
    SPLIT_NAMES,
    called,
    class_folders,
    classes_without_split,
    folders_in,
    images_below,
    one_called,
)
from ...data.sources.names import require_different
from ...data.sources.text import check_name, read_text

# Kind of target -> the columns of a CSV that hold it, in any of these names.
KINDS = {"classification": ("label", "class", "class_name", "target")}
IMAGE = ("image", "file", "path", "filename", "file_name")
OTHERS = {"split": ("split", "set", "subset"), "group": ("group", "person", "patient", "series")}
SPLITS = ("train", "val", "test")


@dataclass
class Images:
    """Image files with their targets.

    Attributes:
        root: ``files`` are relative to it.
        labels: (N,) indices into ``class_names``.
        splits: (N,) of SPLITS; all "train" where there is no split.
        groups: names of what belongs together, such as a person, per image; [] where none are given.
        left_out: (file, why) of what is not used.
        notes: what a reader of the result must know.
    """

    root: Path
    files: list[str]
    labels: np.ndarray
    splits: np.ndarray
    class_names: list[str]
    groups: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    source: str = "class folders"
    kind: str = "classification"

    def __len__(self) -> int:
        return len(self.files)

    def take(self, chosen: np.ndarray) -> "Images":
        """Those with these indices."""
        return Images(
            self.root,
            [self.files[i] for i in chosen],
            self.labels[chosen],
            self.splits[chosen],
            self.class_names,
            [self.groups[i] for i in chosen] if self.groups else [],
            self.left_out,
            self.notes,
            self.source,
            self.kind,
        )

    def path(self, i: int) -> Path:
        return self.root / self.files[i]


def open_images(place: str | Path) -> Images:
    """Find the images of a folder or a CSV; no image is read.

    Raises:
        DataError: they are missing, contradict each other, or cannot be told apart; the message says what to do.
    """
    place = Path(place).expanduser()
    if place.is_dir():
        images = _from_folder(place.absolute())
    elif place.is_file():
        images = _from_csv(place.absolute())
    else:
        raise DataError(f"{place.absolute()} is missing: give a folder of class folders, or a CSV of images and labels")
    return _listable(images)


def _from_folder(root: Path) -> Images:
    whole = classes_without_split(root)
    if called(root, "train") and not whole:
        used = {name: folder for name in SPLITS if (folder := one_called(root, name))}
        classes, whose = class_folders(root / used["train"]), f"{used['train']}/"
    else:
        used, classes, whose = {"train": ""}, whole, "it"
    if len(classes) < 2:
        raise DataError(_why_no_classes(root, root / used["train"], classes))
    require_different(classes, str(root / used["train"]))
    files, labels, splits, notes = [], [], [], []
    for name, folder in used.items():
        items, others = images_below(root, folder, classes, whose)
        files += [path for path, _ in items]
        labels += [label for _, label in items]
        splits += [name] * len(items)
        notes += others
    if unused := [name for name in folders_in(root) if name not in (*used.values(), *classes)]:
        notes.append(f"folders of {root.name} that are not used: {', '.join(map(printable, unused))}")
    return Images(root, files, np.array(labels, int), np.array(splits), classes, notes=notes)


def _why_no_classes(root: Path, folder: Path, classes: list[str]) -> str:
    names = classes or [name for name in folders_in(folder) if os.listdir(folder / name)]
    if len(names) == 1:
        return f"{folder} has only one class ({printable(names[0])}): there is nothing to tell apart; add another class"
    return (
        f"{root} has no class folders with images: it must hold <class>/<image>, or train/<class>/<image> and the "
        "like; a CSV with the columns image,label does as well"
    )


def _from_csv(path: Path) -> Images:
    rows, columns = _rows(path)
    files, texts, splits, groups = [], [], [], []
    seen: dict[str, str] = {}
    notes, twice = [], 0
    for number, row in rows:
        name, label = row[columns["image"]].strip(), row[columns["label"]].strip()
        if not name or not label:
            raise DataError(f"{path}, line {number}: {'the image' if not name else 'the label'} is empty")
        if name in seen:
            if seen[name] != label:
                raise DataError(
                    f"{path}, line {number}: {shown(name)} is {shown(label)} here and {shown(seen[name])} before; an "
                    "image has one label"
                )
            twice += 1
            continue
        seen[name] = label
        files.append(name)
        texts.append(check_name(label, f"{path}, line {number}"))
        splits.append(_split_of(row[columns["split"]], f"{path}, line {number}") if "split" in columns else "train")
        groups += [row[columns["group"]].strip() or f"\0{number}"] if "group" in columns else []
    if twice:
        notes.append(f"{path.name} lists {twice} images more than once; each is used once")
    if not files:
        raise DataError(f"{path} has its first line alone: add a line for each image")
    names = sorted(set(texts), key=(lambda t: (len(t), t)) if all(map(str.isdecimal, texts)) else None)
    if len(names) < 2:
        raise DataError(f"{path} has only one class ({shown(names[0])}): there is nothing to tell apart")
    labels = np.array([names.index(text) for text in texts] if len(names) < 50 else _indices(texts, names), int)
    if not (np.array(splits) == "train").any():
        raise DataError(f"{path}: no image is in train")
    root = path.parent
    require_files(root, list(zip(files, labels.tolist(), strict=True)), path.name)
    return Images(root, files, labels, np.array(splits), names, groups, notes=notes, source=f"CSV {path.name}")


def _indices(texts: list[str], names: list[str]) -> list[int]:
    index = {name: i for i, name in enumerate(names)}
    return [index[text] for text in texts]


def _rows(path: Path) -> tuple[list[tuple[int, list[str]]], dict[str, int]]:
    """(Line number, cells) of all lines after the head, and where the columns are."""
    text = read_text(path)
    try:
        head = text.partition("\n")[0]
        separator = max(",;\t", key=head.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file: {error}") from error
    if not rows:
        raise DataError(f"{path} is empty")
    names = [cell.strip().lower() for cell in rows[0][1]]
    columns = {}
    for column, known in {"image": IMAGE, "label": KINDS["classification"], **OTHERS}.items():
        if found := [name for name in known if name in names]:
            columns[column] = names.index(found[0])
    if missing := {"image", "label"} - columns.keys():
        raise DataError(
            f"{path} has no column {' and no column '.join(sorted(missing))}: its first line must be "
            f"image,label[,split][,group], and is {shown(','.join(rows[0][1]))}. Boxes, masks and numbers as targets "
            "are not fitted yet"
        )
    width = len(names)
    if short := next((number for number, row in rows if len(row) != width), None):
        raise DataError(f"{path}, line {short}: it does not have the {width} cells of the first line")
    return rows[1:], columns


def _split_of(text: str, where: str) -> str:
    plain = text.strip().lower()
    found = next((name for name, names in SPLIT_NAMES.items() if plain in names), None)
    if found is None:
        raise DataError(f"{where}: the split is {shown(text)!r}; it must be train, val or test")
    return found


def _listable(images: Images) -> Images:
    """Without files whose names a list file cannot hold."""
    for name in images.class_names:
        if name != name.strip() or len(name.splitlines()) > 1:
            raise DataError(f"the class name {name!r} begins or ends with a blank, or has a line break: rename it")
    bad = [
        i for i, name in enumerate(images.files) if name != name.strip() or "\t" in name or "\n" in name or "\r" in name
    ]
    images.left_out += [
        (printable(images.files[i]), "its name has a tab, a line break or a blank at an end") for i in bad
    ]
    return images.take(np.setdiff1d(np.arange(len(images)), bad)) if bad else images
