"""Images in uncompressed tar files, read where they lie: webdataset's convention, without webdataset."""

import os
import tarfile
from pathlib import Path

import numpy as np

from .base import IMAGE_ENDINGS, DataError, Split


def tar_split(paths: list[Path]) -> Split:
    """The images of tar files, read where they lie; the members of one key must be in the same file.

    Raises:
        DataError: a broken file, or an image without a label or a label without an image.
    """
    places, labels, keys = [], [], []
    files = [_File(path) for path in paths]
    for shard, file in enumerate(files):
        images, classes = _members(file)
        if odd := sorted(images.keys() ^ classes.keys()):
            raise DataError(f"{file.path}: {len(odd)} keys lack the image or the .cls: {', '.join(odd[:5])}")
        for key, (start, size) in images.items():
            places.append((shard, start, size))
            labels.append(classes[key])
            keys.append(f"{file.path.name}/{key}")
    if not keys:
        raise DataError(f"{', '.join(path.name for path in paths)} in {paths[0].parent} hold no images")
    at = np.array(places, np.int64)

    def read(i: int) -> bytes:
        shard, start, size = at[i].tolist()
        return files[shard].read(start, size)

    return Split(read, np.array(labels, int), keys, lambda i: f"{keys[i]} {files[at[i, 0]].stamp}")


class _File:
    """An open file: threads may read at the same time."""

    def __init__(self, path: Path):
        self.path, self.number = path, os.open(path, os.O_RDONLY)
        facts = os.fstat(self.number)
        self.size, self.stamp = facts.st_size, f"{facts.st_size} {facts.st_mtime_ns}"

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self.number, size, start)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


def _members(file: _File) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """(start, size) of each key's image, and each key's label."""
    images, classes = {}, {}
    try:
        with tarfile.open(file.path, "r:") as tar:
            for member in tar:
                tar.members = []  # it would keep them all
                folder, name = os.path.split(member.name)
                key, _, ending = name.partition(".")  # webdataset's rule: a key ends at the first dot
                key = os.path.join(folder, key)
                if not member.isfile():
                    continue
                if member.offset_data + member.size > file.size:
                    raise DataError(f"{file.path} is cut off: {member.name} is not whole")
                if ending == "cls":
                    classes[key] = int(file.read(member.offset_data, member.size))
                elif f".{ending.lower()}" in IMAGE_ENDINGS:
                    if key in images:
                        raise DataError(f"{file.path} has more than one image for key {key}")
                    images[key] = (member.offset_data, member.size)
    except (tarfile.TarError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file.path} is no readable tar file with integer labels: {error}") from error
    return images, classes
