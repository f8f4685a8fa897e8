"""Image sets in a few large files: webdataset's tar files, or Hugging Face's parquet files.

``DATAPATH/{train,val,test}*.tar`` with ``<key>.<jpg, png, ...>`` and ``<key>.cls`` for every image, class names in
classnames.txt; ``DATAPATH/{train,val,test}*.parquet`` (or in data/) with the columns image and label.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import DataError, Layout, Source, Split, Wanted
from .subsets import DRAWN, draw
from .tar_shards import tar_split

ROW_GROUPS = 4  # of parquet files that stay in memory
NAMES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Shards(Layout):
    """Tar or parquet files of one data set; without val, a stratified part of train becomes it."""

    kind: ClassVar[str] = "shards"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        return next((here for here in (root, root / "data") if _files(here)["train"]), None)

    def open(self, here: Path, wanted: Wanted) -> Source:
        splits, names = {}, []
        for name, paths in _files(here).items():
            if not paths:
                continue
            if endings := {path.suffix for path in paths} - {paths[0].suffix}:
                raise DataError(f"{here} has {name} in {paths[0].suffix} and {', '.join(endings)} files: keep one kind")
            if paths[0].suffix == ".parquet":
                splits[name], found = _parquet(paths)
                names = names or found
            else:
                splits[name] = tar_split(paths)
        listed = next((p for p in (here / "classnames.txt", here.parent / "classnames.txt") if p.is_file()), None)
        if listed is not None:
            names = [line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()]
        count = 1 + max(int(split.labels.max()) for split in splits.values())
        names = [*names, *(str(i) for i in range(len(names), count))]
        total = sum(map(len, splits.values()))
        return Source(names, draw(splits, wanted, names, here), f"{total} images in shards")

    def expects(self) -> str:
        return "train*.tar (webdataset) or train*.parquet (Hugging Face), and the same for test and, optionally, val"


def _files(here: Path) -> dict[str, list[Path]]:
    """The shards of each split, by what their names begin with."""
    found = {name: [] for name in NAMES}
    if not here.is_dir():
        return found
    for path in sorted(here.iterdir()):
        if path.name.endswith((".tar.gz", ".tgz")) and path.name.startswith(NAMES["train"]):
            raise DataError(f"{path} is compressed, so that images in it cannot be read one by one: gunzip it")
        for name, starts in NAMES.items():
            rest = next(
                (path.stem[len(start) :] for start in sorted(starts, key=len)[::-1] if path.stem.startswith(start)),
                None,
            )
            if path.suffix in (".tar", ".parquet") and rest is not None and not rest[:1].isalpha():
                found[name].append(path)
    return found


def _parquet(paths: list[Path]) -> tuple[Split, list[str]]:
    import json

    from pyarrow import ArrowException, parquet

    places, labels, stamps, names = [], [], [], []
    try:
        files = [parquet.ParquetFile(path) for path in paths]
        for number, (path, file) in enumerate(zip(paths, files, strict=True)):
            if missing := {"image", "label"} - set(file.schema_arrow.names):
                raise DataError(f"{path} has no column {', '.join(sorted(missing))}; it has {file.schema_arrow.names}")
            facts = path.stat()
            labels.append(file.read(["label"])["label"].to_numpy())
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                places += [(number, group, row) for row in range(rows)]
                stamps += [f"{facts.st_size} {facts.st_mtime_ns} {group}"] * rows
            about = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
            names = about.get("info", {}).get("features", {}).get("label", {}).get("names", names)
    except (ArrowException, OSError) as error:
        raise DataError(f"{paths[0].parent} holds parquet files that cannot be read: {error}") from error
    recent: OrderedDict[tuple[int, int], list] = OrderedDict()
    lock = threading.Lock()

    def read(i: int) -> bytes:
        number, group, row = places[i]
        with lock:
            if (number, group) not in recent:
                recent[number, group] = files[number].read_row_group(group, ["image"])["image"]
                if len(recent) > ROW_GROUPS:
                    recent.popitem(last=False)
            value = recent[number, group][row].as_py()
        return value["bytes"] if isinstance(value, dict) else value

    keys = [f"{paths[number].name}/{group}/{row}" for number, group, row in places]
    return Split(read, np.concatenate(labels).astype(int), keys, stamps.__getitem__), names
