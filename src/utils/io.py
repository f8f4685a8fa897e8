"""Files that are either complete or absent: written next to their destination, flushed to disk, then renamed."""

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
MOST_JSON = 2**28  # maximum bytes of a JSON file

# Errors of flock on file systems without locks.
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


def remove_partial(folder: Path) -> None:
    """Remove the partial files of killed processes."""
    for path in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class InUse(FileExistsError):
    """Another process is working there."""


class WriteError(OSError):
    """A file could not be written; the message says which and why, and that the previous content is intact."""


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` create a file next to ``path``, then rename it to ``path``.

    Raises:
        WriteError: the disk is full, gone or not writable.
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
        kept = "; its previous content is intact" if path.exists() else ""
        raise WriteError(f"{path} cannot be written: {error.strerror or error}{kept}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # the disk is gone; remove_partial cleans up later
                Path(temporary).unlink(missing_ok=True)


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` fill a folder next to ``path``, then rename it to ``path``; only then is the old one removed."""
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
    """A lock: one process at a time. The system releases ``path`` when a process dies, however it dies.

    Raises:
        InUse: another process holds the lock.
        WriteError: the folder of ``path`` cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise WriteError(f"{path.parent} cannot be written to: {error.strerror or error}") from error
    with file:
        if not _locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            raise InUse(f"another process is working in {path.parent}")
        yield


@contextmanager
def waiting_for(path: Path, message: str) -> Iterator[None]:
    """Like ``exclusive``, but wait for the other process; ``message`` is logged if waiting is necessary."""
    with open(path, "a", encoding="utf-8") as file:
        if not _locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            logger.info(message)
            _locked(file, fcntl.LOCK_EX)
        yield


def _locked(file: TextIO, how: int) -> bool:
    """Lock a file; False if another process holds the lock.

    Some file systems have no locks (Lustre mounted without flock, NFS without its lock daemon, some FUSE ones). There,
    two processes may do the same work, but the files they write are still complete.

    Raises:
        OSError: the system's error, with the file's name.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OSError(error.errno, error.strerror, file.name) from error
        _warn_once(f"note: {Path(file.name).parent} is on a file system without locks: keep other processes out of it")
    return True


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


def write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    write_text(path, simplejson.dumps(content, indent=2, ignore_nan=True) + "\n")


def write_json_lines(path: Path, rows: list[dict]) -> None:
    write_text(path, "".join(simplejson.dumps(row, ignore_nan=True) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is broken, or larger than any file ViTune writes; the message names it.
    """
    return _parsed(path, _text(path))


def read_json_lines(path: Path) -> list[dict]:
    """The objects of a file with one per line.

    Raises:
        ValueError: as ``read_json``, or a line is not an object.
    """
    rows = [_parsed(path, line) for line in _text(path).splitlines()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} is broken: a line is not a JSON object")
    return rows


def _text(path: Path) -> str:
    path = Path(path)
    if (size := path.stat().st_size) > MOST_JSON:
        raise ValueError(f"{path} is broken: {size:,} bytes are more than ViTune ever writes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is broken: it is not UTF-8 text") from error


def _parsed(path: Path, text: str) -> Any:
    try:
        return simplejson.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is broken: {error}") from error
