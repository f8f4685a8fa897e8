"""Random access to many large files, with only a few of them open at a time."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .base import DataError

MOST_OPEN = 16  # per split; a process may usually open 1,024 files


class OpenFiles:
    """``read`` any bytes of any of the files; thread-safe.

    Attributes:
        sizes: in bytes.
        stamps: strings that change when the file does.
    """

    def __init__(self, paths: Sequence[Path | str]):
        self.paths = list(paths)
        facts = [os.stat(path) for path in self.paths]
        self.sizes = [fact.st_size for fact in facts]
        self.stamps = [f"{fact.st_size} {fact.st_mtime_ns}" for fact in facts]
        self._open = lru_cache(MOST_OPEN)(_OpenFile)

    def read(self, number: int, start: int, size: int) -> bytes:
        """``size`` bytes of file ``number``, fewer at the end.

        Raises:
            DataError: the file cannot be opened or read any more.
        """
        path = self.paths[number]
        try:
            return os.pread(self._open(path).number, size, start)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error


class _OpenFile:
    """Closed when the last reference goes: a thread may still be reading a file that the cache has dropped."""

    def __init__(self, path: Path | str):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)
