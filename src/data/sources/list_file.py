"""List files: lines "<image> <label>", or indices into a training set, as text or in numpy's format."""

from pathlib import Path

import numpy as np

from .base import DataError, shown
from .text import read_lines

NPY = b"\x93NUMPY"
MOST_DIGITS = 18  # of a label: fits an int64


def find_list(path: str, folder: Path) -> Path:
    """A list file named in the config, relative to the current folder or to the data set's.

    Raises:
        DataError: it is in neither folder.
    """
    for place in (Path(path).expanduser(), folder / path, folder / "annotations" / path):
        if place.is_file():
            return place
    raise DataError(f"list file {path} is neither in {Path.cwd()} nor in {folder.absolute()}")


def read_list(path: Path) -> list[tuple[str, int]]:
    """Read lines "<image> <label>"; names may contain spaces.

    Raises:
        DataError: the file is missing, empty, or has a malformed line.
    """
    items = []
    for number, line in read_lines(path):
        name, _, label = line.replace("\t", " ").rpartition(" ")
        if not name.strip() or not is_number(label):
            raise DataError(f"{path}, line {number}: expected '<image> <label>', found {shown(line)!r}")
        items.append((name.strip(), int(label)))
    return items


def is_number(text: str) -> bool:
    """Whether a text is a label or an index: decimal digits that fit an int64."""
    return text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS


def is_index_list(path: Path) -> bool:
    """Whether a list holds indices: a numpy file, or a first line that is a number.

    Raises:
        DataError: the file is missing or empty.
    """
    return _is_npy(path) or read_lines(path)[0][1].isdecimal()


def read_indices(path: Path, count: int, row: int = 0) -> np.ndarray:
    """The indices in a file, one per line, or in a one-dimensional ``.npy`` file, each below ``count``.

    Args:
        row: of a two-dimensional ``.npy`` file with one split per row (the unifying study's CIFAR-100-500).

    Raises:
        DataError: the file is missing, empty, or holds something other than indices.
    """
    if _is_npy(path):
        return _read_npy(path, count, row)
    indices = []
    for number, line in read_lines(path):
        if not is_number(line) or int(line) >= count:
            raise DataError(f"{path}, line {number}: expected an index below {count:,}, found {shown(line)!r}")
        indices.append(int(line))
    return np.array(indices, int)


def _is_npy(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(NPY)) == NPY
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _read_npy(path: Path, count: int, row: int) -> np.ndarray:
    """Memory-mapped and never unpickled: a header that promises more than the file holds allocates nothing."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python: ValueError, SyntaxError, TypeError, OverflowError
        raise DataError(
            f"{path} is not an .npy file of indices ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise DataError(f"{path} holds {array.dtype} of shape {array.shape}: expected integers, (N,) or (splits, N)")
    if array.ndim == 2:
        if not 0 <= row < len(array):
            raise DataError(f"{path} has {len(array)} rows (one per split), but DATA.SPLIT_SEED is {row}")
        array = array[row]
    if not len(array):
        raise DataError(f"{path} is empty")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= count:
        raise DataError(f"{path}: expected indices below {count:,}, found {low if low < 0 else high:,}")
    return np.array(array, int)
