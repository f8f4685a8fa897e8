"""VTAB-1k as folders with list files, the layout of NOAH, SPT, RLRR and the unifying study.

``DATAPATH/<task>/{train800,val200,test}.txt`` with lines ``images/<split>/<file> <label>``. The copy that circulates
was re-encoded as JPEG: its pixels differ from the original data sets', which the result notes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .base import DataError, FileSplit, Layout, Source, Wanted, count_classes, require_files
from .list_file import read_list
from .text import read_json

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
ALSO = {"cifar": "cifar100", "oxford_iiit_pet": "oxford_pet"}  # names of two folders in NOAH's scripts
ORIGIN = "vitune.json"  # in folders made by src.tools.prepare: what they were converted from
KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PN": "PNG"}


@dataclass(frozen=True)
class VTABFolder(Layout):
    """One VTAB-1k task in its ``folder``."""

    folder: str
    kind: ClassVar[str] = "noah"

    def find(self, root: Path) -> Path | None:
        places = [root / self.folder, root / ALSO.get(self.folder, self.folder)]
        if root.name in (self.folder, ALSO.get(self.folder)):
            places.append(root)
        return next((folder for folder in places if any((folder / name).is_file() for name in LISTS.values())), None)

    def open(self, folder: Path, wanted: Wanted) -> Source:
        if missing := [name for name in LISTS.values() if not (folder / name).is_file()]:
            raise DataError(f"{folder.absolute()} has no {', '.join(missing)} (see VTAB_SETUP.md)")
        items = {name: read_list(folder / file) for name, file in LISTS.items()}
        for name, some in items.items():
            require_files(folder, some, str(folder / LISTS[name]))
        splits = {name: FileSplit(folder, some) for name, some in items.items()}
        with open(folder / items["train"][0][0], "rb") as file:
            encoding = KINDS.get(file.read(3), "other files")
        notes, origin = [], folder / ORIGIN
        version = f"VTAB-1k folder {folder.name}, {encoding}"
        if origin.is_file():
            made_from = read_json(origin)
            if not isinstance(made_from, dict) or not isinstance(made_from.get("notes", []), list):
                raise DataError(f"{origin} was not written by src.tools.prepare: convert the folder again")
            version += f", original files of {made_from.get('version', 'unknown')}"
            notes += map(str, made_from.get("notes", []))
        elif encoding == "JPEG":
            notes.append("images come from a VTAB-1k folder re-encoded as JPEG: not the original pixels")
        both = folder / "train800val200.txt"
        if both.is_file() and sorted(read_list(both), key=_last) != sorted(items["train"] + items["val"], key=_last):
            notes.append(f"{both.name} is not the union of train800.txt and val200.txt; those two are used")
        names = [str(i) for i in range(count_classes(splits, str(folder)))]
        return Source(names, splits, version, notes=notes)

    def expects(self) -> str:
        return f"{self.folder}/{{{','.join(LISTS.values())}}} and the images they list (see VTAB_SETUP.md)"


def _last(item: tuple[str, int]) -> tuple[str, int]:
    return item[0].rsplit("/", 1)[-1], item[1]
