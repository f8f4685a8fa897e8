"""Rows of numbers, one for every image, that are computed once: on disk, found again by later runs, or in memory.

Those in the folder are named by a hash of all that decides them.

    <name>.json    the checksum of the rows, and what they are; written last
    <name>.npy     the rows: see store.py
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..utils.io import read_json, waiting_for, write_json
from .store import Store, Writer, remove_unfinished, writable

logger = logging.getLogger(__name__)

GIB = 2**30


@dataclass(frozen=True)
class Rows:
    """What is wanted: (count, width) int64, ``name`` for people, ``file`` the beginning of a file's name.

    ``facts`` are all that decides them, as numbers and strings.
    """

    name: str
    file: str
    count: int
    width: int
    facts: dict

    @property
    def nbytes(self) -> int:
        return 8 * self.count * self.width

    def digest(self) -> str:
        facts = {"count": self.count, "width": self.width} | self.facts
        return hashlib.blake2b(repr(sorted(facts.items())).encode(), digest_size=10).hexdigest()


class RowCache:
    """A folder of rows, for several runs and processes at once.

    Args:
        folder: where they are; None: only in memory.
        disk: bytes that may be kept there; what is opened counts as well.
        memory: bytes that may be kept in memory.
    """

    def __init__(self, folder: Path | None, disk: float, memory: float):
        self.folder, self.disk, self.memory = folder, disk, memory

    def open(self, rows: Rows, compute: Callable[[], Iterator[Tensor]]) -> tuple[Tensor | None, bool]:
        """The rows and whether they were found; None, with a note, if there is no place for them.

        Args:
            compute: gives them in their order, some at a time, on the CPU.
        """
        if self.folder is None or not self._fits(rows, self.disk, "left of DATA.CACHE_GB"):
            return self._compute(rows, compute, None), False
        base = self.folder / f"{rows.file}-{rows.digest()}"
        if (found := self._find(base, rows)) is not None:
            return found, True
        if not writable(self.folder, rows.name) or not self._fits(
            rows, shutil.disk_usage(self.folder).free, f"free in {self.folder} (DATA.CACHE_DIR)"
        ):
            return self._compute(rows, compute, None), False
        message = f"another process computes {rows.name}: waiting for it"
        with waiting_for(base.with_name(f".{base.name}.lock"), message):
            if (found := self._find(base, rows)) is not None:  # it has done the work
                return found, True
            remove_unfinished(base)
            return self._compute(rows, compute, base), False

    def _fits(self, rows: Rows, room: float, where: str) -> bool:
        if rows.nbytes <= room:
            return True
        have, need = max(room, 0) / GIB, rows.nbytes / GIB
        logger.warning("note: %s are not kept on disk: %.3g GiB, and %.3g GiB are %s", rows.name, need, have, where)
        return False

    def _find(self, base: Path, rows: Rows) -> Tensor | None:
        """What is on disk, if it is whole."""
        path = _file(base, ".npy")
        try:
            about = read_json(_file(base, ".json"))
            store = Store.open(path, None)
            if store.array.shape != (rows.count, rows.width):
                raise ValueError(f"{store.array.shape} rows")
            return self._opened(store) if store.is_whole(about, path, rows.name) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            logger.warning("note: %s is damaged and is made again: %s", path, error)
            return None

    def _opened(self, store: Store) -> Tensor:
        self.disk -= store.nbytes
        return torch.from_numpy(store.array)

    def _compute(self, rows: Rows, compute: Callable[[], Iterator[Tensor]], base: Path | None) -> Tensor | None:
        """Into memory if there is room, and below ``base``; what is there is then used instead."""
        memory = torch.empty((rows.count, rows.width), dtype=torch.int64) if rows.nbytes <= self.memory else None
        writer, at = self._writer(rows, base), 0
        try:
            if memory is not None or writer is not None:
                for some in compute():
                    if memory is not None:
                        memory[at : at + len(some)] = some
                    at += len(some)
                    writer = writer and self._add(writer, some, rows)
                    if memory is None and writer is None:
                        break
            if writer is not None and (store := self._finish(writer, base, rows)) is not None:
                return self._opened(store)
        finally:
            if writer is not None:
                writer.discard()
        if memory is None:
            need, have = rows.nbytes / GIB, self.memory / GIB
            logger.warning("note: %s take %.3g GiB, and may take %.3g GiB of memory", rows.name, need, have)
            return None
        self.memory -= memory.nbytes
        return memory

    def _writer(self, rows: Rows, base: Path | None) -> Writer | None:
        try:
            return Writer(_file(base, ".npy")) if base is not None else None
        except OSError as error:
            self._lost(rows, error)
            return None

    def _add(self, writer: Writer, some: Tensor, rows: Rows) -> Writer | None:
        try:
            for row in some:
                writer.add(row)
            return writer
        except OSError as error:
            self._lost(rows, error)
            writer.discard()
            return None

    def _finish(self, writer: Writer, base: Path, rows: Rows) -> Store | None:
        try:
            write_json(_file(base, ".json"), rows.facts | writer.finish())
            return Store.open(_file(base, ".npy"), None)
        except OSError as error:
            self._lost(rows, error)
            return None

    def _lost(self, rows: Rows, error: OSError) -> None:
        logger.warning("note: %s are not kept on disk: %s: %s", rows.name, self.folder, error.strerror)


def quarter_of_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def _file(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)
