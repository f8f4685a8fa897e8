"""Text written by others: lists, class names, JSON and tables. All readers of such files use this module.

A byte order mark is not part of the text (Excel and Notepad write one), file names need not be UTF-8, and files that
are far too large are rejected.
"""

import json
import unicodedata
from pathlib import Path

from .base import DataError, printable

MOST_BYTES = 2**28  # ImageNet's training list has 80 MB


def read_text(path: Path) -> str:
    """A file's text without its byte order mark; bytes that are not UTF-8 become surrogates, as in file names.

    Raises:
        DataError: the file is missing, unreadable, too large, or not text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{Path(path).absolute()} is missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} has more than {MOST_BYTES >> 20} MiB: too large for such a text file")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is in UTF-16: save it as UTF-8")
    if b"\0" in data:
        raise DataError(f"{path} is not UTF-8 text: it holds null bytes")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(Line number from 1, stripped line) of all lines that are not blank.

    Raises:
        DataError: as ``read_text``, or there are no such lines.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{Path(path).absolute()} is empty")
    return lines


def read_names(path: Path) -> list[str]:
    """Class names, one per line, in label order.

    Raises:
        DataError: as ``read_lines``, or there is a blank line among the names, which would shift the labels after it.
    """
    lines = read_lines(path)
    for expected, (number, _) in enumerate(lines, start=lines[0][0]):
        if number != expected or lines[0][0] != 1:
            blank = expected if lines[0][0] == 1 else 1
            raise DataError(f"{path}, line {blank} is blank: each line must name a class, in label order")
    for number, name in lines:
        check_name(name, f"{path}, line {number}")
    return [name for _, name in lines]


def read_json(path: Path) -> object:
    """The content of a JSON file.

    Raises:
        DataError: as ``read_text``, or it is not JSON, or an object has a key twice.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> object:
    """The same for a text; ``where`` names its source."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise DataError(f"{where} cannot be read: its JSON is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON: {printable(str(error))}") from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{name!r} occurs twice")
        content[name] = value
    return content


def check_name(name: str, where: str) -> str:
    """The class name, if it can be stored.

    Raises:
        DataError: it is not UTF-8.
    """
    if printable(name) != name:
        raise DataError(f"{where}: the class name {printable(name)!r} is not UTF-8: rename it")
    return name


def composed(name: str) -> str:
    """The stripped name in Unicode NFC, as most systems write accents; macOS decomposes them."""
    return unicodedata.normalize("NFC", name).strip()
