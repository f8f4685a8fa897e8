"""Rows of numbers, one per image, computed once: on disk, where later runs reuse them, or in memory.

Files are named by a hash of everything that determines the rows.

    <name>.json    the checksum of the rows and what determines them; written last
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
from .store import GIB, Store, Writer, remove_unfinished, writable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """A request for (count, width) int64; ``name`` is for messages, ``file`` is the file name's prefix.

    ``facts`` is everything that determines them, as numbers and strings.
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
    """A folder of rows, shared by several runs and processes.

    Args:
        folder: its path; None: in memory only.
        disk: bytes that may be kept there; opened rows count towards it.
        memory: bytes that may be kept in memory.
    """

    def __init__(self, folder: Path | None, disk: float, memory: float):
        self.folder = folder
        self.disk = disk
        self.memory = memory

    def open(self, rows: Rows, compute: Callable[[], Iterator[Tensor]]) -> tuple[Tensor | None, bool]:
        """The rows and whether they were found on disk; (None, False), with a note, if there is no room for them.

        Args:
            compute: yields them in order, some at a time, on the CPU.
        """
        if self.folder is None or not self._fits(rows, self.disk, "left of DATA.CACHE_GB"):
            return self._compute(rows, compute, None), False
        base = self.folder / f"{rows.file}-{rows.digest()}"
        if (values := self._find(base, rows)) is not None:
            return values, True
        if not writable(self.folder, rows.name) or not self._fits(
            rows, shutil.disk_usage(self.folder).free, f"free in {self.folder} (DATA.CACHE_DIR)"
        ):
            return self._compute(rows, compute, None), False
        message = f"another process computes {rows.name}: waiting for it"
        with waiting_for(base.with_name(f".{base.name}.lock"), message):
            if (values := self._find(base, rows)) is not None:  # the other process has done the work
                return values, True
            remove_unfinished(base)
            return self._compute(rows, compute, base), False

    def _fits(self, rows: Rows, room: float, where: str) -> bool:
        if rows.nbytes <= room:
            return True
        have, need = max(room, 0) / GIB, rows.nbytes / GIB
        logger.warning(
            "note: %s are not kept on disk: they take %.3g GiB, %.3g GiB are %s", rows.name, need, have, where
        )
        return False

    def _find(self, base: Path, rows: Rows) -> Tensor | None:
        """The rows on disk, if they are complete."""
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
            logger.warning("note: %s is damaged and will be recreated: %s", path, error)
            return None

    def _opened(self, store: Store) -> Tensor:
        self.disk -= store.nbytes
        return torch.from_numpy(store.array)

    def _compute(self, rows: Rows, compute: Callable[[], Iterator[Tensor]], base: Path | None) -> Tensor | None:
        """Compute the rows into memory, if there is room, and to ``base``; if that succeeds, the file is used."""
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
            logger.warning("note: %s take %.3g GiB, but only %.3g GiB of memory may be used", rows.name, need, have)
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
    """A quarter of the physical memory, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def _file(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)
