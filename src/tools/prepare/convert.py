"""Converting data sets without TensorFlow: tfrecord and ArrayRecord, VTAB folders and TFDS directories.

Images keep their bytes; only arrays are encoded, as PNG. Output is written to ``.<name>.partial`` next to its
destination, compared with the input, and then renamed: a killed conversion leaves nothing that looks finished, and
continues when it is started again.
"""

import io
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import DatasetInfo
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from ...data.decode import open_image
from ...data.sources.base import DataError, RawImage, Source, Split
from ...data.sources.records import ArrayRecords, TFRecords, write_tfrecord
from ...data.sources.text import read_json
from ...data.sources.tfds import read_info
from ...data.sources.vtab import ORIGIN
from ...utils.io import PARTIAL, exclusive, write_atomic, write_json, write_text
from ...utils.progress import tqdm
from .recipes import FORMATS

READERS = dict(zip(FORMATS, (TFRecords, ArrayRecords), strict=True))

FOLDER_SPLITS = {"train": "train800", "val": "val200", "test": "test"}  # our names -> names in VTAB folders
PER_SHARD = 4096  # records per shard of TFDS directories that we write

# How image files begin, for the formats in data sets.
_BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"RIFF": ".webp",
}


@contextmanager
def unfinished(place: Path, origin: str) -> Iterator[Path]:
    """A folder that becomes ``place`` if the block ends without an error, and otherwise stays for the next attempt.

    Args:
        origin: what is being converted; the remains of an attempt with another origin are removed.

    Raises:
        FileExistsError: ``place`` exists, or another process is writing it.
    """
    if place.exists():
        raise FileExistsError(f"{place} exists and is not overwritten: choose another destination, or remove it")
    folder = place.parent / f".{place.name}{PARTIAL}"
    lock, note = place.parent / f".{place.name}.lock", folder / ".origin"
    with exclusive(lock):
        if folder.exists() and (not note.is_file() or note.read_text(encoding="utf-8") != origin):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(note, origin)
        yield folder
        for path in folder.rglob(f".*{PARTIAL}"):
            path.unlink()
        note.unlink()
        folder.rename(place)
        lock.unlink()


# ---- shards ----


@dataclass(frozen=True)
class Shard:
    """One file of a TFDS directory, with its records."""

    path: Path
    split: str
    count: int
    file_format: str

    def read(self) -> Iterator[bytes]:
        """Its records, in order.

        Raises:
            DataError: the file is missing, truncated or damaged.
        """
        if not self.path.is_file():
            raise DataError(f"{self.path} is missing")
        if not self.count:
            return
        try:
            whole = FileInstruction(str(self.path), skip=0, take=self.count, examples_in_shard=self.count)
            records = READERS[self.file_format]([whole])
            for i in range(self.count):
                yield records[i]
        except DataError:
            raise
        except (OSError, ValueError, RuntimeError, IndexError) as error:  # raised by ArrayRecord for broken files
            raise DataError(f"{self.path} is damaged: {error}") from error

    def write(self, records: Iterable[bytes]) -> None:
        """Write the file, completely or not at all."""
        write_atomic(self.path, lambda path: _WRITERS[self.file_format](path, records))


def _write_tfrecords(path: Path, records: Iterable[bytes]) -> None:
    with open(path, "wb") as file:
        for record in records:
            write_tfrecord(file, record)


def _write_array_records(path: Path, records: Iterable[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")  # as in TFDS: each record can be read separately
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()


_WRITERS = {"tfrecord": _write_tfrecords, "array_record": _write_array_records}


def open_info(folder: Path) -> DatasetInfo:
    """TFDS's information about a prepared version directory.

    Raises:
        DataError: it is not one, or is in an unsupported format.
    """
    if not (folder / "dataset_info.json").is_file():
        raise DataError(f"{folder} is not a prepared TFDS version directory: it has no dataset_info.json")
    info = read_info(tfds, folder)
    if info.file_format.value not in FORMATS:
        raise DataError(f"{folder} is in format {info.file_format.value}; known: {', '.join(FORMATS)}")
    return info


def shards_of(info: DatasetInfo) -> list[Shard]:
    """All shards, in order of the splits' names."""
    return [
        Shard(Path(path), name, count, info.file_format.value)
        for name in sorted(info.splits)
        for path, count in zip(info.splits[name].filepaths, info.splits[name].shard_lengths, strict=True)
    ]


def feed(checksum, record: bytes) -> None:
    """Add a record with its length to a hash object; the length detects bytes moved between records."""
    checksum.update(len(record).to_bytes(8, "little"))
    checksum.update(record)


# ---- tfrecord <-> ArrayRecord ----


def convert_records(source: Path, place: Path, to: str) -> DatasetInfo:
    """Copy a prepared TFDS version directory into the other file format, with identical records.

    Args:
        to: "array_record" or "tfrecord".

    Raises:
        DataError: ``source`` is damaged or already in that format, or the output does not read back identically.
        FileExistsError: ``place`` exists.
    """
    info = open_info(source)
    if info.file_format.value == to:
        raise DataError(f"{source} is already in format {to}")
    shards = shards_of(info)
    sizes = [f"{shard.path.name} {shard.path.stat().st_size}" for shard in shards if shard.path.is_file()]
    with unfinished(place, "\n".join([str(source.absolute()), to, *sizes])) as folder:
        _copy_metadata(source, folder, to)
        copies = shards_of(open_info(folder))
        total = sum(shard.count for shard in shards)
        with progress(f"writing {to}", total) as bar:
            for shard, copy in zip(shards, copies, strict=True):
                if copy.path.is_file():
                    bar.update(shard.count)
                else:
                    copy.write(counted(shard.read(), bar))
        with progress("comparing", total) as bar:
            for shard, copy in zip(shards, copies, strict=True):
                if _checksum(counted(shard.read(), bar)) != _checksum(copy.read()):
                    copy.path.unlink()
                    raise DataError(f"{copy.path} does not read back like {shard.path} and was removed: start again")
    return open_info(place)


def _copy_metadata(source: Path, folder: Path, to: str) -> None:
    """Copy everything but the shards; dataset_info.json gets the new format."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not any(f".{name}-" in path.name for name in FORMATS):
            write_atomic(folder / path.name, lambda temporary, path=path: shutil.copyfile(path, temporary))
    facts = read_json(folder / "dataset_info.json")
    old = facts.get("fileFormat", "tfrecord")
    facts["fileFormat"] = to
    facts.pop("alternativeFileFormats", None)
    for split in facts["splits"]:
        if template := split.get("filepathTemplate"):
            split["filepathTemplate"] = template.replace(f".{old}-", f".{to}-")
    write_json(folder / "dataset_info.json", facts)


def _checksum(records: Iterable[bytes]) -> str:
    checksum = blake2b()
    for record in records:
        feed(checksum, record)
    return checksum.hexdigest()


# ---- folders with lists ----


def write_folder(source: Source, place: Path) -> None:
    """Write a VTAB task as the folder used by NOAH, SPT and others: images/<split>/<number>.<ending> and list files.

    ``vitune.json`` records the origin of the images, to distinguish them from the re-encoded JPEG files.

    Raises:
        DataError: an image is of an unknown kind, or a file does not read back correctly.
        FileExistsError: ``place`` exists.
    """
    with unfinished(place, f"folder of {source.version}") as folder:
        lines = {name: [] for name in FOLDER_SPLITS.values()}
        with progress("writing images", sum(map(len, folder_splits(source).values()))) as bar:
            for name, split in folder_splits(source).items():
                (folder / "images" / name).mkdir(parents=True, exist_ok=True)
                for i in range(len(split)):
                    data = encoded(split.read(i), split.keys[i])
                    path = f"images/{name}/{i:06d}{ending(data, split.keys[i])}"
                    _write_once(folder / path, data)
                    lines[name].append(f"{path} {split.labels[i]}\n")
                    bar.update()
        lines["train800val200"] = lines["train800"] + lines["val200"]
        for name, its in lines.items():
            write_text(folder / f"{name}.txt", "".join(its))
        write_json(folder / ORIGIN, {"version": source.version, "notes": source.notes})
        _compare_folder(source, folder)


def folder_splits(source: Source) -> dict[str, Split]:
    """The splits by their names in VTAB folders.

    Raises:
        DataError: one of the three is missing.
    """
    if missing := [name for name in FOLDER_SPLITS if name not in source.splits]:
        raise DataError(f"{source.version} has no {' and no '.join(missing)} images")
    return {folder_name: source.splits[name] for name, folder_name in FOLDER_SPLITS.items()}


def _write_once(path: Path, data: bytes) -> None:
    """Write a file unless it exists with this content; not atomic, since its folder is still temporary."""
    if not path.is_file() or path.read_bytes() != data:
        path.write_bytes(data)


def _compare_folder(source: Source, folder: Path) -> None:
    """Raises DataError unless list files and images read back as the source's labels and images."""
    with progress("comparing", sum(map(len, folder_splits(source).values()))) as bar:
        for name, split in folder_splits(source).items():
            lines = (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
            for i, line in enumerate(lines):
                path, label = line.rsplit(" ", 1)
                raw, data = split.read(i), (folder / path).read_bytes()
                same = data == raw if isinstance(raw, bytes) else np.array_equal(_pixels(data), raw.squeeze())
                if not same or int(label) != split.labels[i] or len(lines) != len(split):
                    raise DataError(f"{folder / path} does not read back as {split.keys[i]} of {source.version}")
                bar.update()


def encoded(raw: RawImage, name: str) -> bytes:
    """The file's bytes as they are, or an array, uint8 (H, W), (H, W, 1) or (H, W, 3), as PNG."""
    if isinstance(raw, bytes):
        return raw
    if raw.dtype != np.uint8:
        raise DataError(f"{name} has pixels of type {raw.dtype}; known: uint8")
    file = io.BytesIO()
    Image.fromarray(raw.squeeze(2) if raw.ndim == 3 and raw.shape[2] == 1 else raw).save(file, "PNG")
    return file.getvalue()


def ending(data: bytes, name: str) -> str:
    """The file name ending for an encoded image.

    Raises:
        DataError: it does not begin like an image of a known kind.
    """
    for beginning, suffix in _BEGINNINGS.items():
        if data.startswith(beginning):
            return suffix
    raise DataError(f"{name} is not an image of a known kind: it begins with {data[:8]!r}")


def _pixels(data: bytes) -> np.ndarray:
    with open_image(data) as image:
        return np.asarray(image)


# ---- TFDS directories ----


def write_tfds(
    splits: dict[str, Split], place: Path, name: str, num_classes: int, file_format: str, origin: str
) -> DatasetInfo:
    """Write splits as a TFDS version directory for ``tfds.builder_from_directory(place)``.

    Its features are image, label and file_name (the split's keys); its version is the name of the folder ``place``.

    Args:
        name: the data set's name for TFDS: lower case letters, digits and "_".
        origin: what was converted; used as the data set's description.

    Raises:
        DataError: an image is of an unknown kind, a label is out of range, or a record does not read back correctly.
        FileExistsError: ``place`` exists.
    """
    for split, its in splits.items():
        if len(its) and not 0 <= its.labels.min() <= its.labels.max() < num_classes:
            raise DataError(f"{split} of {origin} has labels outside 0..{num_classes - 1}")
    features = _features(num_classes)
    total = sum(map(len, splits.values()))
    with unfinished(place, f"{name} {file_format} {num_classes} {origin}") as folder:
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, filetype_suffix=file_format, split="any"
        )
        infos = []
        with progress(f"writing and comparing {file_format}", 2 * total) as bar:
            for split_name, split in splits.items():
                shards = _plan(template.replace(split=split_name), len(split))
                sizes = [_write_shard(split, features, shard, first, bar) for first, shard in shards]
                infos.append(
                    tfds.core.SplitInfo(
                        name=split_name,
                        shard_lengths=[shard.count for _, shard in shards],
                        num_bytes=sum(sizes),
                        filename_template=template.replace(split=split_name),
                    )
                )
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=infos,
            version=place.name,
            description=f"Converted from: {origin}",
            check_data=False,  # it would import TensorFlow; all records were compared above
        )
    return open_info(place)


def _features(num_classes: int) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(num_classes=num_classes),
            "file_name": tfds.features.Text(),
        }
    )


def _plan(template: tfds.core.ShardedFileTemplate, count: int) -> list[tuple[int, Shard]]:
    """The shards of a split, each with the index of its first record."""
    firsts = range(0, max(count, 1), PER_SHARD)
    return [
        (
            first,
            Shard(
                Path(template.sharded_filepath(shard_index=i, num_shards=len(firsts))),
                template.split,
                min(PER_SHARD, count - first),
                template.filetype_suffix,
            ),
        )
        for i, first in enumerate(firsts)
    ]


def _write_shard(split: Split, features, shard: Shard, first: int, bar: tqdm) -> int:
    """Write a shard unless it exists, and compare it with the split; returns the number of bytes of its records."""

    def record(i: int) -> bytes:
        image = io.BytesIO(encoded(split.read(i), split.keys[i]))
        example = {"image": image, "label": int(split.labels[i]), "file_name": split.keys[i]}
        return features.serialize_example(features.encode_example(example))

    if shard.path.is_file():
        bar.update(shard.count)
    else:
        shard.write(counted((record(i) for i in range(first, first + shard.count)), bar))
    raw, size = {"image": tfds.decode.SkipDecoding()}, 0
    for i, data in enumerate(counted(shard.read(), bar), start=first):
        example = features.deserialize_example_np(data, decoders=raw)
        actual = example["image"], int(example["label"]), example["file_name"].decode()
        if actual != (encoded(split.read(i), split.keys[i]), int(split.labels[i]), split.keys[i]):
            shard.path.unlink()
            raise DataError(f"{shard.path}: record {i - first} does not read back as {split.keys[i]}: start again")
        size += len(data)
    return size


# ---- progress ----


def progress(what: str, total: int) -> tqdm:
    """A bar in a terminal, a line every half minute in a log file."""
    interval = 0.2 if sys.stderr.isatty() else 30
    return tqdm(desc=what, total=total, unit=" records", delay=1, mininterval=interval, miniters=1, leave=False)


def counted(records: Iterable[bytes], bar: tqdm) -> Iterator[bytes]:
    for record in records:
        yield record
        bar.update()
