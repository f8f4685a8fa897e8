"""Images in uncompressed tar files, read where they lie: webdataset's convention, without webdataset."""

import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .base import IMAGE_ENDINGS, DataError, Split, printable
from .folder import SYSTEM_FOLDERS
from .list_file import MOST_DIGITS, is_number
from .open_files import OpenFiles

BLOCK = tarfile.BLOCKSIZE


def tar_split(paths: list[Path], notes: list[str]) -> Split:
    """The images of tar files, read where they lie; the members of one key must be in the same file.

    Args:
        notes: what else is in the files is told there.

    Raises:
        DataError: a broken file, or an image without a label or a label without an image.
    """
    places, labels, keys, others = [], [], [], Counter()
    files = OpenFiles(paths)
    for shard, path in enumerate(paths):
        found = _members(path, files.sizes[shard])
        found.leave_out_more_images()
        if odd := sorted(found.images.keys() ^ found.labels.keys()):
            some = ", ".join(map(printable, odd[:5]))
            raise DataError(f"{path}: {len(odd)} keys lack the image or the .cls: {some}")
        for key, (start, size) in found.images.items():
            places.append((shard, start, size))
            labels.append(found.labels[key])
            keys.append(f"{path.name}/{printable(key)}")
        others += found.others
    if not keys:
        raise DataError(f"{', '.join(path.name for path in paths)} in {paths[0].parent} hold no images")
    if others:
        said = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(10))
        notes.append(f"{', '.join(path.name for path in paths[:3])}{', ...' * (len(paths) > 3)}: left out are {said}")
    at = np.array(places, np.int64)

    def read(i: int) -> bytes:
        shard, start, size = at[i].tolist()
        return files.read(shard, start, size)

    return Split(read, np.array(labels, int), keys, lambda i: f"{keys[i]} {files.stamps[at[i, 0]]}")


@dataclass
class _Found:
    """(start, size) of each key's image, each key's label, and what else there is: how many of each ending."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    others: Counter = field(default_factory=Counter)

    def leave_out_more_images(self) -> None:
        """Of a sample with more than its image, such as a.jpg, a.cls and a mask a.seg.png, take only the image."""
        for key in self.images.keys() - self.labels.keys():
            base = os.path.join(os.path.dirname(key), os.path.basename(key).partition(".")[0])
            if base in self.images and base in self.labels:
                del self.images[key]
                self.others["further images of a key"] += 1


def _members(path: Path, size: int) -> _Found:
    found = _Found()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # it would keep them all
                if not member.isfile() or member.issparse():
                    if not member.isdir():
                        found.others["links and the like"] += 1
                    continue
                if member.offset_data + member.size > size:
                    raise DataError(f"{path} is cut off: {printable(member.name)} is not whole")
                _add(found, tar, member, path)
            _require_end(tar, path, size)
    except DataError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, OSError, EOFError) as error:
        raise DataError(f"{path} is no readable tar file: {error}") from error
    return found


def _add(found: _Found, tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    key, ending = _key(member.name)
    hidden = os.path.basename(member.name).startswith(".") or SYSTEM_FOLDERS & set(member.name.lower().split("/"))
    if ending == "cls" and not hidden:
        if key in found.labels:
            raise DataError(f"{path} has more than one label for key {printable(key)}")
        found.labels[key] = _label(tar, member, path)
    elif f".{ending}" in IMAGE_ENDINGS and not hidden:
        if key in found.images:
            raise DataError(f"{path} has more than one image for key {printable(key)}")
        found.images[key] = (member.offset_data, member.size)
    else:
        found.others["hidden files" if hidden else f".{printable(ending)[:20]} files"] += 1


def _key(name: str) -> tuple[str, str]:
    """What a member belongs to, and its ending: img003.v2.png is the image of img003.v2, its label img003.v2.cls."""
    base, _, ending = os.path.basename(name).rpartition(".")
    return os.path.join(os.path.dirname(name), base), ending.lower()


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    tar.fileobj.seek(member.offset_data)
    text = tar.fileobj.read(min(member.size, 2 * MOST_DIGITS)).strip()
    said = text.decode("utf-8", "backslashreplace").removeprefix("\ufeff")
    if not is_number(said):
        raise DataError(
            f"{path}: {printable(member.name)} holds {said!r} ({member.size:,} bytes); expected a label, 0 ..."
        )
    return int(said)


def _require_end(tar: tarfile.TarFile, path: Path, size: int) -> None:
    """Raises DataError: Python's tarfile stopped before the end mark, as it does silently at a damaged header."""
    with open(path, "rb") as file:
        file.seek(tar.offset)
        block = file.read(BLOCK)
        after = file.read(20 * BLOCK)
    if len(block) < BLOCK:
        raise DataError(f"{path} is cut off: it has no end mark, so images may be missing")
    if block.strip(b"\0"):
        raise DataError(f"{path} is damaged at byte {tar.offset:,} of {size:,}: what follows cannot be read")
    if after.strip(b"\0"):
        raise DataError(f"{path} goes on after its end mark: what follows would not be read (are these files joined?)")
