"""VTAB-1k as folders with list files, the layout that NOAH, SPT, RLRR and the unifying study share.

``DATAPATH/<task>/{train800,val200,test}.txt`` with lines ``images/<split>/<file> <label>``. The copy that circulates
was re-encoded as JPEG: its pixels are not those of the original data sets, and the result says so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .base import DataError, FileSplit, Layout, Source, Wanted, count_classes, require_files
from .list_file import read_list
from .text import read_json

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
ALSO = {"cifar": "cifar100", "oxford_iiit_pet": "oxford_pet"}  # what NOAH's scripts call two of the folders
ORIGIN = "vitune.json"  # in a folder that src.tools.prepare made: what it was converted from
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
        return next((here for here in places if any((here / name).is_file() for name in LISTS.values())), None)

    def open(self, here: Path, wanted: Wanted) -> Source:
        if missing := [name for name in LISTS.values() if not (here / name).is_file()]:
            raise DataError(f"{here.absolute()} has no {', '.join(missing)} (see VTAB_SETUP.md)")
        items = {name: read_list(here / file) for name, file in LISTS.items()}
        for name, some in items.items():
            require_files(here, some, str(here / LISTS[name]))
        splits = {name: FileSplit(here, some) for name, some in items.items()}
        with open(here / items["train"][0][0], "rb") as file:
            encoding = KINDS.get(file.read(3), "other files")
        notes, origin = [], here / ORIGIN
        said = f"VTAB-1k folder {here.name}, {encoding}"
        if origin.is_file():
            made_from = read_json(origin)
            if not isinstance(made_from, dict) or not isinstance(made_from.get("notes", []), list):
                raise DataError(f"{origin} is not what src.tools.prepare writes: convert the folder again")
            said += f", original files of {made_from.get('version', 'unknown')}"
            notes += map(str, made_from.get("notes", []))
        elif encoding == "JPEG":
            notes.append("images are those of a VTAB-1k folder, re-encoded as JPEG: not the original pixels")
        both = here / "train800val200.txt"
        if both.is_file() and sorted(read_list(both), key=_last) != sorted(items["train"] + items["val"], key=_last):
            notes.append(f"{both.name} is not train800.txt and val200.txt together; those two are used")
        names = [str(i) for i in range(count_classes(splits, str(here)))]
        return Source(names, splits, said, notes=notes)

    def expects(self) -> str:
        return f"{self.folder}/{{{','.join(LISTS.values())}}} and the images they list (see VTAB_SETUP.md)"


def _last(item: tuple[str, int]) -> tuple[str, int]:
    return item[0].rsplit("/", 1)[-1], item[1]
