"""Image sets in a few large files: webdataset's tar files, or Hugging Face's parquet files.

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
    """Tar or parquet files of one data set; without val, a stratified part of train becomes it."""

    kind: ClassVar[str] = "shards"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        return next((here for here in (root, root / "data") if _files(here)["train"]), None)

    def open(self, here: Path, wanted: Wanted) -> Source:
        places = (here / "classnames.txt", here.parent / "classnames.txt")
        listed = next((read_names(path) for path in places if path.is_file()), [])
        files, notes = {name: paths for name, paths in _files(here).items() if paths}, []
        kinds = {path.suffix for paths in files.values() for path in paths}
        if len(kinds) > 1:
            raise DataError(f"{here} has {' and '.join(sorted(kinds))} files: keep one kind")
        if kinds == {".parquet"}:
            from .parquet import parquet_splits

            splits, names, notes = parquet_splits(files)
            splits, names = _renamed(splits, names, listed, here)
        else:
            splits, names = {name: tar_split(paths, notes) for name, paths in files.items()}, listed
        used = {path for paths in files.values() for path in paths}
        if unused := [p.name for p in sorted(here.iterdir()) if p.suffix in (".tar", ".parquet") and p not in used]:
            notes.append(f"{len(unused)} files of {here} are of no split and not used: {', '.join(unused[:5])}")
        count = count_classes(splits, str(here))
        names = [*names, *(str(i) for i in range(len(names), count))]
        version = f"{sum(map(len, splits.values()))} images in shards"
        if "val" not in splits and not wanted.shots and not wanted.lists:
            version += f", val is a stratified {wanted.val_fraction:g} of train, split seed {wanted.split_seed}"
        return Source(names, draw(splits, wanted, names, here), version, notes=notes)

    def expects(self) -> str:
        return "train*.tar (webdataset) or train*.parquet (Hugging Face), and the same for test and, optionally, val"


def _files(here: Path) -> dict[str, list[Path]]:
    """The shards of each split, by what their names begin with."""
    found = {name: [] for name in SPLIT_NAMES}
    if not here.is_dir():
        return found
    for path in sorted(here.iterdir()):
        name = next((split for split, starts in SPLIT_NAMES.items() if _begins(path.stem.lower(), starts)), "")
        if name and path.name.endswith((".tar.gz", ".tgz")):
            raise DataError(f"{path} is compressed, so that images in it cannot be read one by one: gunzip it")
        if name and path.suffix in (".tar", ".parquet"):
            found[name].append(path)
    return found


def _begins(stem: str, starts: tuple[str, ...]) -> bool:
    """Whether a name begins with one of those words, such as train-00000-of-00002 and validation."""
    return any(stem.startswith(word) and not stem[len(word) : len(word) + 1].isalpha() for word in starts)


def _renamed(
    splits: dict[str, Split], names: list[str], listed: list[str], here: Path
) -> tuple[dict[str, Split], list[str]]:
    """The splits with the classes in the order of classnames.txt, which may also have other names for as many."""
    if not names or not listed:
        return splits, names or listed
    if sorted(names) == sorted(listed):
        index = require_match(names, listed, str(here), "classnames.txt")
        for split in splits.values():
            split.labels = np.array(index, int)[split.labels]
    elif len(names) != len(listed):
        raise DataError(f"{here} has {len(names)} classes in its parquet files and {len(listed)} in classnames.txt")
    return splits, listed
