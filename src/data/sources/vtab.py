"""VTAB-1k as folders with list files, the layout that NOAH, SPT, RLRR and the unifying study share.

``DATAPATH/<task>/{train800,val200,test}.txt`` with lines ``images/<split>/<file> <label>``. The copy that circulates
was re-encoded as JPEG: its pixels are not those of the original data sets, and the result says so.
"""

from pathlib import Path

from .base import DataError, Source, files_split

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}


def VTABFolder(root: Path, folder: str, val_fraction: float) -> Source:
    """One VTAB-1k task below ``root/folder``.

    Raises:
        DataError: the folder or a list file is missing, or a line of it cannot be read.
    """
    here = Path(root) / folder
    if not here.is_dir():
        raise DataError(
            f"{here.absolute()} is missing: DATA.DATAPATH must hold the VTAB-1k folders (see VTAB_SETUP.md)"
        )
    splits = {name: files_split(here, _items(here / file)) for name, file in LISTS.items()}
    labels = {int(label) for split in splits.values() for label in split.labels}
    names = [str(i) for i in range(max(labels) + 1)]
    return Source(names, splits, "VTAB-1k folder, images re-encoded as JPEG by those who made it")


def _items(path: Path) -> list[tuple[str, int]]:
    if not path.is_file():
        raise DataError(f"{path.absolute()} is missing (see VTAB_SETUP.md)")
    items = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise DataError(f"{path}, line {number}: expected '<image> <label>', found {line!r}")
        items.append((name, int(label)))
    return items
