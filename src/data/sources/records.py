"""Random access to raw records of a prepared TFDS directory, in tfrecord or ArrayRecord format, without TensorFlow."""

import os
import struct
import threading
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from tensorflow_datasets.core import DatasetInfo
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from .base import DataError, shown
from .open_files import MOST_OPEN, OpenFiles

HEADER, FOOTER = 12, 4  # a TFRecord: length (8 bytes), its checksum (4), the data, the data's checksum (4)


def open_records(info: DatasetInfo, instruction: str) -> "Records":
    """The records, serialised tf.train.Example messages, of a split or a part of one, such as "train[:800]".

    Raises:
        DataError: the split is unknown, or a shard is missing or truncated.
    """
    try:
        shards = info.splits[instruction].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        raise DataError(
            f"{info.full_name} has no {instruction!r} (splits: {shown(', '.join(info.splits))}): {shown(str(error))}"
        ) from None
    readers = {"tfrecord": TFRecords, "array_record": ArrayRecords}
    usual = info.file_format.value
    for name in (usual, *(other.value for other in info.alternative_file_formats or ())):
        renamed = [shard.replace(filename=shard.filename.replace(f".{usual}-", f".{name}-")) for shard in shards]
        if name in readers and all(Path(shard.filename).is_file() for shard in renamed):
            return readers[name](renamed)
    if usual not in readers:
        raise DataError(f"{info.full_name} is in format {usual}; known: {', '.join(readers)}")
    missing = [shard.filename for shard in shards if not Path(shard.filename).is_file()]
    some = ", ".join(missing[:3])
    raise DataError(f"{len(missing)} of {len(shards)} files of {info.full_name} are missing: {some}")


class Records:
    """``file_format``, len(records), records[i] -> bytes, records.stamp(i); thread-safe."""

    def __init__(self, shards: Sequence[FileInstruction]):
        self.shards = shards
        self.ends = list(accumulate(shard.take for shard in shards))
        self.files = OpenFiles([shard.filename for shard in shards])

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> bytes:
        raise NotImplementedError

    def stamp(self, i: int) -> str:
        """A string that changes when the shard of record ``i`` does."""
        shard, position = self._locate(i)
        return f"{Path(self.shards[shard].filename).name} {self.files.stamps[shard]} {position}"

    def _locate(self, i: int) -> tuple[int, int]:
        """The shard of record ``i`` and its position in it."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        shard = bisect_right(self.ends, i)
        first = self.ends[shard] - self.shards[shard].take
        return shard, self.shards[shard].skip + i - first


class ArrayRecords(Records):
    file_format = "array_record"

    def __init__(self, shards: Sequence[FileInstruction]):
        super().__init__(shards)
        self.open = lru_cache(MOST_OPEN)(_ArrayRecordFile)
        self.lock = threading.Lock()  # a reader has a position in the file

    def __getitem__(self, i: int) -> bytes:
        shard, position = self._locate(i)
        try:
            with self.lock:
                return self.open(self.shards[shard].filename).source[position]
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{self.shards[shard].filename}: record {position} is damaged ({error})") from error


class _ArrayRecordFile:
    """One file, closed when the last reference goes."""

    def __init__(self, path: str):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.source = ArrayRecordDataSource([path])

    def __del__(self):
        if hasattr(self, "source"):
            self.source.__exit__(None, None, None)


class TFRecords(Records):
    """Checksums are verified, as in TensorFlow."""

    file_format = "tfrecord"

    def __init__(self, shards: Sequence[FileInstruction]):
        super().__init__(shards)
        self.spans = [_spans(Path(shard.filename), shard.skip + shard.take) for shard in shards]

    def __getitem__(self, i: int) -> bytes:
        shard, position = self._locate(i)
        start, length = self.spans[shard][position].tolist()
        data = self.files.read(shard, start, length + FOOTER)
        record = data[:length]
        if len(data) != length + FOOTER or _checksum(record) != data[length:]:
            raise DataError(f"{self.shards[shard].filename}: record {position} is damaged (its checksum is wrong)")
        return record


def _spans(path: Path, count: int) -> np.ndarray:
    """(start, length) of the first ``count`` records' data."""
    size = path.stat().st_size
    if not 0 <= count <= size // (HEADER + FOOTER):
        raise DataError(f"{path} cannot hold {count:,} records: it has {size:,} bytes. Prepare it again")
    spans = np.empty((count, 2), np.int64)
    with open(path, "rb") as file:
        for i in range(count):
            at = file.tell()
            header = file.read(HEADER)
            length = int.from_bytes(header[:8], "little")
            if len(header) < HEADER or _checksum(header[:8]) != header[8:] or at + HEADER + length + FOOTER > size:
                raise DataError(f"{path} is truncated or damaged at record {i} of {count}: prepare it again")
            spans[i] = at + HEADER, length
            file.seek(length + FOOTER, os.SEEK_CUR)
    return spans


def write_tfrecord(file, record: bytes) -> None:
    """Append one record to an open binary file."""
    length = struct.pack("<Q", len(record))
    file.write(length + _checksum(length) + record + _checksum(record))


def _checksum(data: bytes) -> bytes:
    """TFRecord's masked CRC-32C."""
    import google_crc32c  # imported here: only this format needs it

    value = google_crc32c.value(data)
    return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
