"""List files: lines "<image> <label>", or one index into a training set each."""

from pathlib import Path

import numpy as np

from .base import DataError


def read_list(path: Path) -> list[tuple[str, int]]:
    """The lines "<image> <label>" of a file; names may contain spaces.

    Raises:
        DataError: no such file, no line, or one that cannot be read.
    """
    items = []
    for number, line in _lines(path):
        name, _, label = line.rpartition(" ")
        if not name.strip() or not label.isdecimal():
            raise DataError(f"{path}, line {number}: expected '<image> <label>', found {line!r}")
        items.append((name.strip(), int(label)))
    return items


def read_indices(path: str | Path, count: int) -> np.ndarray:
    """The indices in a file, one per line, each below ``count``.

    Raises:
        DataError: no such file, no line, or one that is no index.
    """
    found = []
    for number, line in _lines(Path(path)):
        if not line.isdecimal() or int(line) >= count:
            raise DataError(f"{path}, line {number}: expected an index below {count:,}, found {line!r}")
        found.append(int(line))
    return np.array(found, int)


def _lines(path: Path) -> list[tuple[int, str]]:
    if not path.is_file():
        raise DataError(f"{path.absolute()} is missing")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text file: {error}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{path.absolute()} is empty")
    return lines
