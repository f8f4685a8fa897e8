"""Images in uncompressed tar files, read in place, in webdataset's format, without webdataset."""

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
    """The images of tar files, read in place; all members of a key must be in the same file.

    Args:
        notes: gets a note about other members of the files.

    Raises:
        DataError: a file is broken, or an image has no label, or a label no image.
    """
    places = []
    labels = []
    keys = []
    others = Counter()
    files = OpenFiles(paths)
    for shard, path in enumerate(paths):
        members = _members(path, files.sizes[shard])
        members.leave_out_more_images()
        if odd := sorted(members.images.keys() ^ members.labels.keys()):
            some = ", ".join(map(printable, odd[:5]))
            raise DataError(f"{path}: {len(odd)} keys lack the image or the .cls: {some}")
        for key, (start, size) in members.images.items():
            places.append((shard, start, size))
            labels.append(members.labels[key])
            keys.append(f"{path.name}/{printable(key)}")
        others += members.others
    if not keys:
        raise DataError(f"{', '.join(path.name for path in paths)} in {paths[0].parent} hold no images")
    if others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(10))
        notes.append(f"{', '.join(path.name for path in paths[:3])}{', ...' * (len(paths) > 3)}: left out are {kinds}")
    at = np.array(places, np.int64)

    def read(i: int) -> bytes:
        shard, start, size = at[i].tolist()
        return files.read(shard, start, size)

    return Split(read, np.array(labels, int), keys, lambda i: f"{keys[i]} {files.stamps[at[i, 0]]}")


@dataclass
class _Members:
    """(start, size) of each key's image, each key's label, and the number of other members per ending."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    others: Counter = field(default_factory=Counter)

    def leave_out_more_images(self) -> None:
        """Keep only the image of a sample with further images, such as a mask: a.jpg, a.cls and a.seg.png."""
        for key in self.images.keys() - self.labels.keys():
            base = os.path.join(os.path.dirname(key), os.path.basename(key).partition(".")[0])
            if base in self.images and base in self.labels:
                del self.images[key]
                self.others["further images of a key"] += 1


def _members(path: Path, size: int) -> _Members:
    members = _Members()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # tarfile would keep them all
                if not member.isfile() or member.issparse():
                    if not member.isdir():
                        members.others["links and the like"] += 1
                    continue
                if member.offset_data + member.size > size:
                    raise DataError(f"{path} is truncated: {printable(member.name)} is incomplete")
                _add(members, tar, member, path)
            _require_end(tar, path, size)
    except DataError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, OSError, EOFError) as error:
        raise DataError(f"{path} is not a readable tar file: {error}") from error
    return members


def _add(members: _Members, tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    key, ending = _key(member.name)
    hidden = os.path.basename(member.name).startswith(".") or SYSTEM_FOLDERS & set(member.name.lower().split("/"))
    if ending == "cls" and not hidden:
        if key in members.labels:
            raise DataError(f"{path} has more than one label for key {printable(key)}")
        members.labels[key] = _label(tar, member, path)
    elif f".{ending}" in IMAGE_ENDINGS and not hidden:
        if key in members.images:
            raise DataError(f"{path} has more than one image for key {printable(key)}")
        members.images[key] = (member.offset_data, member.size)
    else:
        members.others["hidden files" if hidden else f".{printable(ending)[:20]} files"] += 1


def _key(name: str) -> tuple[str, str]:
    """The key of a member, and its ending: img003.v2.png is the image of img003.v2, its label img003.v2.cls."""
    base, _, ending = os.path.basename(name).rpartition(".")
    return os.path.join(os.path.dirname(name), base), ending.lower()


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    tar.fileobj.seek(member.offset_data)
    text = tar.fileobj.read(min(member.size, 2 * MOST_DIGITS)).strip()
    label = text.decode("utf-8", "backslashreplace").removeprefix("\ufeff")
    if not is_number(label):
        raise DataError(
            f"{path}: {printable(member.name)} holds {label!r} ({member.size:,} bytes); expected a label, 0 ..."
        )
    return int(label)


def _require_end(tar: tarfile.TarFile, path: Path, size: int) -> None:
    """Raises DataError: tarfile stopped before the end mark, as it silently does at a damaged header."""
    with open(path, "rb") as file:
        file.seek(tar.offset)
        block = file.read(BLOCK)
        after = file.read(20 * BLOCK)
    if len(block) < BLOCK:
        raise DataError(f"{path} is truncated: it has no end mark, so images may be missing")
    if block.strip(b"\0"):
        raise DataError(f"{path} is damaged at byte {tar.offset:,} of {size:,}: the rest cannot be read")
    if after.strip(b"\0"):
        raise DataError(f"{path} continues after its end mark, where it would not be read (are these joined files?)")
