"""Hugging Face's parquet files: one image per row with its label, a number or a name.

Files may number their classes differently. If names are known, labels are matched by name.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from .base import DataError, Split
from .names import require_match
from .open_files import MOST_OPEN
from .text import check_name, parse_json

ROW_GROUPS = 4  # kept in memory
MOST_EXPANDED = 100  # bytes of a row group per byte of its file: images are already compressed
ALWAYS_FINE = 2**26  # bytes of a row group that are never suspicious


@dataclass
class _Labels:
    """One file's labels: numbers, and the names they stand for, if the file has them."""

    path: Path
    values: np.ndarray
    names: list[str]


def parquet_splits(files: dict[str, list[Path]]) -> tuple[dict[str, Split], list[str], list[str]]:
    """The splits, the class names in label order ([] if no file has them), and notes.

    Raises:
        DataError: a file cannot be read, or its columns or labels are not as expected.
    """
    labels = {split: [_labels(path) for path in paths] for split, paths in files.items()}
    names, notes = _unify(labels), []
    nameless = [some.path.name for its in labels.values() for some in its if not some.names]
    if names and nameless:
        message = "do not name their classes: their labels are assumed to follow the order of the others"
        notes.append(f"{', '.join(nameless[:5])} {message}")
    splits = {
        split: _split(paths, np.concatenate([some.values for some in labels[split]])) for split, paths in files.items()
    }
    if empty := [split for split, its in splits.items() if not len(its)]:
        raise DataError(
            f"the parquet files of {', '.join(empty)} in {next(iter(files.values()))[0].parent} have no rows"
        )
    return splits, names, notes


def _open(path: Path, text: Sequence[str] = ()) -> parquet.ParquetFile:
    """Open a file; each distinct string in the columns ``text`` is stored once.

    Raises:
        DataError: it is not a parquet file.
    """
    try:
        return parquet.ParquetFile(path, read_dictionary=list(text), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable parquet file: {str(error)[:300]}") from error


def _checked(path: Path) -> parquet.ParquetFile:
    """A file with an image and a label in each row.

    Raises:
        DataError: a column is missing or of the wrong type.
    """
    file = _open(path)
    schema, size = file.schema_arrow, path.stat().st_size
    if missing := {"image", "label"} - set(schema.names):
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; it has {schema.names}")
    kind = schema.field("image").type
    if pa.types.is_struct(kind):
        kind = next((kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name == "bytes"), kind)
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{path}: column image holds {kind}; expected encoded image files")
    if not 0 <= file.metadata.num_rows <= size:
        raise DataError(f"{path} claims {file.metadata.num_rows:,} rows in {size:,} bytes: it is damaged")
    kind = schema.field("label").type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return _open(path, ["label"]) if text else file


def _named(path: Path, schema: pa.Schema) -> list[str]:
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    names = parse_json(text.decode("utf-8", "replace"), f"{path}, metadata huggingface")
    for key in ("info", "features", "label", "names"):
        names = names.get(key) if isinstance(names, dict) else None
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(text, str) for text in names):
        raise DataError(f"{path}, metadata huggingface: the names of label are not a list of strings")
    return [check_name(name, str(path)) for name in names]


def _labels(path: Path) -> _Labels:
    file = _checked(path)
    names = _named(path, file.schema_arrow)
    try:
        column = file.read(["label"])["label"].unify_dictionaries().combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: column label cannot be read: {str(error)[:300]}") from error
    where = f"{path}, column label"
    if column.null_count:
        raise DataError(f"{where}: {column.null_count:,} of {len(column):,} rows have no label")
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        if not (pa.types.is_string(column.type.value_type) or pa.types.is_large_string(column.type.value_type)):
            raise DataError(f"{where} holds {kind}; expected numbers or names")
        return _text_labels(path, column, names, where)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where} holds {kind}; expected numbers or names")
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
        row = int(np.flatnonzero(~(values == np.floor(values)))[0])
        raise DataError(f"{where}, row {row}: {values[row]} is not a class")
    most = len(names) or 2**31
    if len(wrong := np.flatnonzero((values < 0) | (values >= most))):
        raise DataError(f"{where}, row {wrong[0]}: class {values[wrong[0]]} does not exist" + _of(names))
    return _Labels(path, values.astype(int), names)


def _text_labels(path: Path, column: pa.DictionaryArray, names: list[str], where: str) -> _Labels:
    texts, codes = column.dictionary.to_pylist(), column.indices.to_numpy()
    used = {texts[code] for code in np.unique(codes).tolist()}
    classes = names or sorted(used)
    index = {check_name(name, where): label for label, name in enumerate(classes)}
    if unknown := sorted(used - index.keys()):
        raise DataError(f"{where}: {unknown[0]!r} is not one of the classes in the file's metadata")
    return _Labels(path, np.array([index.get(text, -1) for text in texts], int)[codes], classes)


def _of(names: list[str]) -> str:
    return f"; the file has {len(names)} classes" if names else ""


def _unify(labels: dict[str, list[_Labels]]) -> list[str]:
    """Number the classes of all files alike: those of the first training file, then those that only later ones have."""
    lists = [some.names for its in labels.values() for some in its if some.names]
    if all(names == lists[0] for names in lists):
        return lists[0] if lists else []
    if twice := next((names for names in lists if len(set(names)) < len(names)), None):
        name = next(name for name in twice if twice.count(name) > 1)
        raise DataError(f"parquet files number classes differently, and two classes are named {name!r}")
    train = [some for some in labels["train"] if some.names]
    if all(sorted(some.names) == some.names for some in train):
        names = sorted({name for some in train for name in some.names})  # text labels, numbered by us
    else:
        names = list(dict.fromkeys(name for some in train for name in some.names))
    for split, its in labels.items():
        for some in its:
            if some.names and not names:
                raise DataError(f"{some.path} names its classes, but no training file does: cannot match labels")
            if some.names:
                used = np.unique(some.values)
                occurring = [some.names[label] for label in used]
                index = np.zeros(len(some.names), int)
                index[used] = require_match(occurring, names, str(some.path), "train" if split != "train" else split)
                some.values = index[some.values]
    return names


def _split(paths: list[Path], labels: np.ndarray) -> Split:
    """The images of a split's files; only a few files are open, and a few row groups in memory, at a time."""
    groups, stamps = [], []  # (path, group, rows)
    for path in paths:
        about, facts = _open(path).metadata, path.stat()
        groups += [(path, group, about.row_group(group).num_rows) for group in range(about.num_row_groups)]
        stamps += [f"{facts.st_size} {facts.st_mtime_ns} {group}" for group in range(about.num_row_groups)]
    ends = list(accumulate(rows for _, _, rows in groups))
    if (ends[-1] if ends else 0) != len(labels):
        raise DataError(f"{paths[0].parent}: the row groups of the parquet files do not add up to their rows: damaged")
    recent: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
    lock, opened = threading.Lock(), lru_cache(MOST_OPEN)(_open)

    def read(i: int) -> bytes:
        number = bisect_right(ends, i)
        path, group, rows = groups[number]
        with lock:
            if number not in recent:
                recent[number] = _images(opened(path), path, group)
                if len(recent) > ROW_GROUPS:
                    recent.popitem(last=False)
            value = recent[number][i - ends[number] + rows].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        if not value:
            raise DataError(f"{path}, row group {group}, row {i - ends[number] + rows}: no image bytes")
        return value

    keys = [f"{path.name}/{group}/{row}" for path, group, rows in groups for row in range(rows)]
    return Split(read, labels, keys, lambda i: stamps[bisect_right(ends, i)])


def _images(file: parquet.ParquetFile, path: Path, group: int) -> pa.ChunkedArray:
    about = file.metadata.row_group(group)
    if about.total_byte_size > max(ALWAYS_FINE, MOST_EXPANDED * path.stat().st_size):
        size = path.stat().st_size
        raise DataError(
            f"{path}, row group {group}: {about.total_byte_size:,} bytes in a file of {size:,}: it is damaged"
        )
    try:
        return file.read_row_group(group, ["image"])["image"]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}, row group {group} cannot be read: {str(error)[:300]}") from error
