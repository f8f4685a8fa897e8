"""Images, or rows of numbers, in one .npy file: written one by one, moved into place when complete, memory-mapped."""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..utils.io import PARTIAL
from ..utils.progress import tqdm

logger = logging.getLogger(__name__)

GIB = 2**30
HEADER = 128  # bytes of numpy's header for an array of up to 4 dimensions


class Store:
    """Images (3, H, W), all of one size: ``array`` is (N, 3, H, W); or of different sizes: ``array`` is flat.

    Also rows (W,) of numbers: ``array`` is (N, W).

    Args:
        shapes: (N, 2) heights and widths if they differ, else None.
    """

    def __init__(self, array: np.ndarray, shapes: list | None):
        self.array = array
        self.shapes = shapes
        if shapes is not None:
            self.ends = np.cumsum([3 * height * width for height, width in shapes])

    @classmethod
    def open(cls, path: Path, shapes: list | None) -> "Store":
        """Raises: OSError, ValueError: no such file, or not an array."""
        try:  # "c": copy-on-write, so that torch does not warn about a read-only array
            return cls(np.load(path, mmap_mode="c"), shapes)
        except EOFError as error:
            raise ValueError(f"{path} is empty") from error

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def image(self, i: int) -> Tensor:
        """Image ``i``, without copying it."""
        if self.shapes is None:
            return torch.from_numpy(self.array[i])
        height, width = self.shapes[i]
        return torch.from_numpy(self.array[self.ends[i] - 3 * height * width : self.ends[i]].reshape(3, height, width))

    def is_whole(self, about: dict, path: Path, name: str) -> bool:
        """Whether size and checksum are those that ``Writer.finish`` returned; logs a note if not."""
        if self.nbytes == about["bytes"] and self.checksum(name) == about["checksum"]:
            return True
        logger.warning("note: %s is damaged and will be recreated", path)
        return False

    def in_memory(self) -> "Store":
        """A copy in memory."""
        return Store(np.array(self.array), self.shapes)

    def checksum(self, name: str) -> str:
        """blake2b of the whole array."""
        digest = hashlib.blake2b(digest_size=16)
        flat = self.array.reshape(-1).view(np.uint8)
        step = 2**24
        for at in tqdm(range(0, len(flat), step), f"checking {name}", unit="16 MiB", delay=1, leave=False):
            digest.update(flat[at : at + step])
        return digest.hexdigest()


class Writer:
    """Writes files for ``Store``.

    Every method except ``discard`` raises OSError if the disk is full or gone.
    """

    def __init__(self, path: Path):
        self.path = path
        handle, self.temporary = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        self.file = os.fdopen(handle, "wb")
        self.file.write(bytes(HEADER))
        self.digest = hashlib.blake2b(digest_size=16)
        self.nbytes = 0
        self.shapes = []
        self.dtype = np.dtype(np.uint8)

    def add(self, image: Tensor) -> None:
        data = image.numpy()
        self.file.write(data)
        self.digest.update(data)
        self.nbytes += data.nbytes
        self.shapes.append(data.shape)
        self.dtype = data.dtype

    def finish(self) -> dict:
        """Move the file into place; returns its size, shapes and checksum."""
        same = len(set(self.shapes)) == 1
        shape = (len(self.shapes), *self.shapes[0]) if same else (self.nbytes // self.dtype.itemsize,)
        self.file.seek(0)
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, facts)
        assert self.file.tell() == HEADER
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.chmod(self.temporary, 0o644)  # mkstemp makes it private
        os.replace(self.temporary, self.path)
        sizes = None if same else [size for _, *size in self.shapes]
        return {"bytes": self.nbytes, "shapes": sizes, "checksum": self.digest.hexdigest()}

    def discard(self) -> None:
        """Remove an unfinished file; does nothing after ``finish``."""
        self.file.close()
        Path(self.temporary).unlink(missing_ok=True)


def writable(folder: Path, what: str) -> bool:
    """Whether files can be written to ``folder``, created if needed; if not, logs that ``what`` are not kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        logger.warning(
            "note: %s are not kept: %s cannot be written to (%s); DATA.CACHE_DIR names another folder",
            what,
            folder,
            error.strerror,
        )
        return False


def remove_unfinished(base: Path) -> None:
    """Remove the partial files of a killed process for ``base``; no other process may be writing it."""
    for path in base.parent.glob(f".{base.name}.*{PARTIAL}"):
        path.unlink()
