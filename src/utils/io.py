"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import simplejson

logger = logging.getLogger(__name__)

PARTIAL = ".partial"
MOST_JSON = 2**28  # bytes of a JSON file

# What flock says where a file system knows no locks.
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


def remove_partial(folder: Path) -> None:
    """Remove what a process that was killed while writing left behind."""
    for path in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class InUse(FileExistsError):
    """Another process is at work there."""


class WriteError(OSError):
    """A file could not be written; the message says which and why, and that what was there before is intact."""


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file beside ``path``, then put it there in one step.

    Raises:
        WriteError: the disk is full, gone, or may not be written to.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        os.close(handle)
        write(Path(temporary))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except OSError as error:
        kept = "; what it held before is intact" if path.exists() else ""
        raise WriteError(f"{path} cannot be written: {error.strerror or error}{kept}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # a disk that is gone; remove_partial finds it later
                Path(temporary).unlink(missing_ok=True)


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` fill a folder beside ``path``, then put it there; what was there goes only when it is ready."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(PARTIAL, f".{path.name}.", path.parent) as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        fill(new)
        if path.exists():
            path.rename(old)
        new.rename(path)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time in; the system lets go of ``path`` when a process dies, however it dies.

    Raises:
        InUse: another process is in.
        WriteError: there is no writing to the folder of ``path``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise WriteError(f"{path.parent} cannot be written to: {error.strerror or error}") from error
    with file:
        if not _locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            raise InUse(f"another process is at work in {path.parent}")
        yield


@contextmanager
def waiting_for(path: Path, message: str) -> Iterator[None]:
    """Like ``exclusive``, but wait until the other process is out; ``message`` is logged if that is necessary."""
    with open(path, "a", encoding="utf-8") as file:
        if not _locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            logger.info(message)
            _locked(file, fcntl.LOCK_EX)
        yield


def _locked(file: TextIO, how: int) -> bool:
    """Lock a file; False: another process has it.

    Some file systems know no locks (Lustre mounted without flock, NFS without its lock daemon, some FUSE ones). Nobody
    is kept out there: two processes may do the same work, and what they write is whole all the same.

    Raises:
        OSError: as the system says, with the file's name.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OSError(error.errno, error.strerror, file.name) from error
        _say_once(f"note: {Path(file.name).parent} is on a file system without locks: keep other processes out of it")
    return True


@cache
def _say_once(text: str) -> None:
    logger.warning(text)


def write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    write_text(path, simplejson.dumps(content, indent=2, ignore_nan=True) + "\n")


def write_json_lines(path: Path, rows: list[dict]) -> None:
    write_text(path, "".join(simplejson.dumps(row, ignore_nan=True) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is broken, or larger than any file that is written here; the message names it.
    """
    return _parsed(path, _text(path))


def read_json_lines(path: Path) -> list[dict]:
    """The objects of a file with one on each line.

    Raises:
        ValueError: as ``read_json``, or a line holds something else.
    """
    rows = [_parsed(path, line) for line in _text(path).splitlines()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} is broken: a line is no JSON object")
    return rows


def _text(path: Path) -> str:
    path = Path(path)
    if (size := path.stat().st_size) > MOST_JSON:
        raise ValueError(f"{path} is broken: {size:,} bytes are more than is ever written there")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is broken: it is no text in UTF-8") from error


def _parsed(path: Path, text: str) -> Any:
    try:
        return simplejson.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is broken: {error}") from error
