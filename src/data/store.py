"""Images in one .npy file: read as a memory map, written one after the other, there when it is whole."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..utils.io import PARTIAL
from ..utils.progress import tqdm

HEADER = 128  # bytes of numpy's header of a flat or 4-dimensional array


class Store:
    """Images (3, H, W), all of one size: ``array`` is (N, 3, H, W); or each of its own: ``array`` is flat.

    Args:
        shapes: (N, 2) heights and widths where they differ, else None.
    """

    def __init__(self, array: np.ndarray, shapes: list | None):
        self.array, self.shapes = array, shapes
        if shapes is not None:
            self.ends = np.cumsum([3 * height * width for height, width in shapes])

    @classmethod
    def open(cls, path: Path, shapes: list | None) -> "Store":
        """Raises: OSError, ValueError: no such file, or no array."""
        return cls(np.load(path, mmap_mode="c"), shapes)  # "c": writing would change memory only, and torch is content

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def image(self, i: int) -> Tensor:
        """Image ``i``, without copying it."""
        if self.shapes is None:
            return torch.from_numpy(self.array[i])
        height, width = self.shapes[i]
        return torch.from_numpy(self.array[self.ends[i] - 3 * height * width : self.ends[i]].reshape(3, height, width))

    def in_memory(self) -> "Store":
        """The same, read into memory as a whole."""
        return Store(np.array(self.array), self.shapes)

    def checksum(self, name: str) -> str:
        """blake2b of all pixels."""
        digest, flat, step = hashlib.blake2b(digest_size=16), self.array.reshape(-1).view(np.uint8), 2**24
        for at in tqdm(range(0, len(flat), step), f"checking {name}", unit="16 MiB", delay=1, leave=False):
            digest.update(flat[at : at + step])
        return digest.hexdigest()


class Writer:
    """Writes what ``Store`` reads.

    Every method but ``discard`` raises OSError where the disk is full or gone.
    """

    def __init__(self, path: Path):
        self.path = path
        handle, self.temporary = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        self.file = os.fdopen(handle, "wb")
        self.file.write(bytes(HEADER))
        self.digest, self.nbytes, self.shapes, self.dtype = hashlib.blake2b(digest_size=16), 0, [], np.dtype(np.uint8)

    def add(self, image: Tensor) -> None:
        data = image.numpy()
        self.file.write(data)
        self.digest.update(data)
        self.nbytes += data.nbytes
        self.shapes.append(data.shape[1:])
        self.dtype = data.dtype

    def finish(self) -> dict:
        """Put the file in its place; its checksum, size and shapes."""
        same = len(set(self.shapes)) == 1
        shape = (len(self.shapes), 3, *self.shapes[0]) if same else (self.nbytes // self.dtype.itemsize,)
        self.file.seek(0)
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, facts)
        assert self.file.tell() == HEADER
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.chmod(self.temporary, 0o644)  # mkstemp makes it private
        os.replace(self.temporary, self.path)
        return {"bytes": self.nbytes, "shapes": None if same else self.shapes, "checksum": self.digest.hexdigest()}

    def discard(self) -> None:
        """Remove what is not finished; nothing happens to what is."""
        self.file.close()
        Path(self.temporary).unlink(missing_ok=True)
