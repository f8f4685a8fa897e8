"""Verifying a data set: every record or image is read, and counts, labels and checksums are checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ...data.decode import BadImage, decode
from ...data.sources.base import DataError, Source
from ...data.sources.text import read_json
from ...utils.io import write_json
from .convert import FOLDER_SPLITS, Shard, counted, encoded, feed, folder_splits, open_info, progress, shards_of

CHECKSUMS = "checksums.json"


@dataclass
class Findings:
    """The results of verifying a data set.

    Attributes:
        damage: problems that make it unusable.
        notes: what a reader of results should know.
        counts: images per split.
        checksums: BLAKE2b over lengths and bytes of a split's records, in order; the same in both file formats.
    """

    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)


def check_records(folder: Path, expected: dict[str, int] | None = None) -> Findings:
    """Read every record of a TFDS version directory; compare its ``checksums.json``, or write it.

    Args:
        expected: published images per split; differences are only noted, since versions differ.

    Raises:
        DataError: ``folder`` is not a TFDS version directory.
    """
    findings, shards = Findings(), shards_of(open_info(folder))
    with progress(f"reading {folder.parent.name}", sum(shard.count for shard in shards)) as shown:
        for split in dict.fromkeys(shard.split for shard in shards):
            its = [shard for shard in shards if shard.split == split]
            findings.counts[split] = sum(shard.count for shard in its)
            checksum, damage = blake2b(digest_size=16), []
            for shard in its:
                try:
                    for record in counted(shard.read(), shown):
                        feed(checksum, record)
                except DataError as error:
                    damage.append(str(error))
            findings.damage += damage
            if not damage:
                findings.checksums[split] = checksum.hexdigest()
    for split, count in (expected or {}).items():
        if findings.counts.get(split) != count:
            findings.notes.append(f"{split} has {findings.counts.get(split, 0):,} images, {count:,} are published")
    _compare_recorded(folder, shards, findings)
    return findings


def _compare_recorded(folder: Path, shards: list[Shard], findings: Findings) -> None:
    """Compare with the checksums recorded beside the data; record them if there are none."""
    if (folder / CHECKSUMS).is_file():
        recorded = _recorded(folder)
        findings.damage += [
            f"{folder}: the records of {split} do not match {CHECKSUMS}"
            for split, checksum in findings.checksums.items()
            if split in recorded and recorded[split] != checksum
        ]
    if findings.damage:
        return
    content = {
        "splits": {
            split: {"records": findings.counts[split], "blake2b": checksum}
            for split, checksum in findings.checksums.items()
        },
        "bytes": _sizes(shards),
    }
    try:
        write_json(folder / CHECKSUMS, content)
    except PermissionError:
        findings.notes.append(f"{folder} is read-only: checksums were not written")


def _recorded(folder: Path) -> dict[str, str]:
    """The recorded checksum of each split.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return {split: facts["blake2b"] for split, facts in read_json(folder / CHECKSUMS)["splits"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / CHECKSUMS} is damaged: remove it and verify again") from error


def _sizes(shards: Iterable[Shard]) -> dict[str, int]:
    return {shard.path.name: shard.path.stat().st_size for shard in shards}


def was_checked(folder: Path) -> bool:
    """Whether all records were verified before and the files' sizes are unchanged; reads no records."""
    if not (folder / CHECKSUMS).is_file():
        return False
    shards = shards_of(open_info(folder))
    recorded = read_json(folder / CHECKSUMS)
    sizes = recorded.get("bytes") if isinstance(recorded, dict) else None
    return all(shard.path.is_file() for shard in shards) and sizes == _sizes(shards)


def check_labels(source: Source, num_classes: int) -> Findings:
    """Check the labels of the task's splits: range, number per class, classes without images."""
    findings = Findings()
    for name, folder_name in FOLDER_SPLITS.items():
        labels = source.splits[name].labels
        findings.counts[folder_name] = len(labels)
        if not len(labels):
            findings.damage.append(f"{folder_name} is empty")
            continue
        if labels.min() < 0 or labels.max() >= num_classes:
            findings.damage.append(f"{folder_name} has labels {labels.min()}..{labels.max()}, not 0..{num_classes - 1}")
            continue
        histogram = np.bincount(labels, minlength=num_classes)
        absent = np.flatnonzero(histogram == 0)
        summary = (
            f"{folder_name}: {len(labels):,} images, {histogram[histogram > 0].min()} to {histogram.max()} per class"
        )
        if num_classes <= 20:
            summary += f" ({' '.join(map(str, histogram))})"
        if len(absent):
            some = " ".join(map(str, absent[:10])) + (" ..." if len(absent) > 10 else "")
            summary += f"; {len(absent)} of {num_classes} classes have none: {some}"
        findings.notes.append(summary)
    return findings


def check_images(source: Source) -> Findings:
    """Decode every image of the task's splits."""
    findings, splits = Findings(), folder_splits(source)
    with progress("decoding", sum(map(len, splits.values()))) as bar:
        for name, split in splits.items():
            checksum = blake2b(digest_size=16)
            for i, key in enumerate(split.keys):
                data = encoded(split.read(i), key)
                feed(checksum, data)
                try:
                    decode(data)
                except BadImage as error:
                    findings.damage.append(f"{key} cannot be decoded: {error}")
                bar.update()
            findings.checksums[name] = checksum.hexdigest()
    return findings
