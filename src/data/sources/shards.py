"""Data sets in a few large files: webdataset's tar files, or Hugging Face's parquet files.

``DATAPATH/{train,val,test}*.tar`` with ``<key>.<jpg, png, ...>`` and ``<key>.cls`` for every image, class names in
classnames.txt; ``DATAPATH/{train,val,test}*.parquet`` (or in data/) with the columns image and label.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import DataError, Layout, Source, Split, Wanted, count_classes
from .folder import SPLIT_NAMES
from .names import require_match
from .subsets import DRAWN, draw
from .tar_shards import tar_split
from .text import read_names


@dataclass(frozen=True)
class Shards(Layout):
    """Tar or parquet files of one data set; without val, a stratified part of train is used."""

    kind: ClassVar[str] = "shards"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        return next((folder for folder in (root, root / "data") if _files(folder)["train"]), None)

    def open(self, folder: Path, wanted: Wanted) -> Source:
        places = (folder / "classnames.txt", folder.parent / "classnames.txt")
        listed = next((read_names(path) for path in places if path.is_file()), [])
        files, notes = {name: paths for name, paths in _files(folder).items() if paths}, []
        kinds = {path.suffix for paths in files.values() for path in paths}
        if len(kinds) > 1:
            raise DataError(f"{folder} has {' and '.join(sorted(kinds))} files: keep one kind")
        if kinds == {".parquet"}:
            from .parquet import parquet_splits

            splits, names, notes = parquet_splits(files)
            splits, names = _renamed(splits, names, listed, folder)
        else:
            splits, names = {name: tar_split(paths, notes) for name, paths in files.items()}, listed
        used = {path for paths in files.values() for path in paths}
        if unused := [p.name for p in sorted(folder.iterdir()) if p.suffix in (".tar", ".parquet") and p not in used]:
            notes.append(
                f"{len(unused)} files of {folder} belong to no split and are not used: {', '.join(unused[:5])}"
            )
        count = count_classes(splits, str(folder))
        names = [*names, *(str(i) for i in range(len(names), count))]
        version = f"{sum(map(len, splits.values()))} images in shards"
        if "val" not in splits and not wanted.shots and not wanted.lists:
            version += f", val is a stratified {wanted.val_fraction:g} of train, split seed {wanted.split_seed}"
        return Source(names, draw(splits, wanted, names, folder), version, notes=notes)

    def expects(self) -> str:
        return "train*.tar (webdataset) or train*.parquet (Hugging Face), and the same for test and, optionally, val"


def _files(folder: Path) -> dict[str, list[Path]]:
    """The shards of each split, by the beginning of their names."""
    files = {name: [] for name in SPLIT_NAMES}
    if not folder.is_dir():
        return files
    for path in sorted(folder.iterdir()):
        name = next((split for split, starts in SPLIT_NAMES.items() if _begins(path.stem.lower(), starts)), "")
        if name and path.name.endswith((".tar.gz", ".tgz")):
            raise DataError(f"{path} is compressed, so its images cannot be read one by one: decompress it with gunzip")
        if name and path.suffix in (".tar", ".parquet"):
            files[name].append(path)
    return files


def _begins(stem: str, starts: tuple[str, ...]) -> bool:
    """Whether a name begins with one of those words, such as train-00000-of-00002."""
    return any(stem.startswith(word) and not stem[len(word) : len(word) + 1].isalpha() for word in starts)


def _renamed(
    splits: dict[str, Split], names: list[str], listed: list[str], folder: Path
) -> tuple[dict[str, Split], list[str]]:
    """The splits with classes in the order of classnames.txt, which may also rename them all."""
    if not names or not listed:
        return splits, names or listed
    if sorted(names) == sorted(listed):
        index = require_match(names, listed, str(folder), "classnames.txt")
        for split in splits.values():
            split.labels = np.array(index, int)[split.labels]
    elif len(names) != len(listed):
        raise DataError(f"{folder} has {len(names)} classes in its parquet files and {len(listed)} in classnames.txt")
    return splits, listed
