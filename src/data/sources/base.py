"""What a data source is: splits of encoded or raw images with labels and names, read one at a time and in any order."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# An encoded image file as it is on disk, or pixels: uint8, (H, W) grey or (H, W, 3) RGB.
RawImage = bytes | np.ndarray

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2")


class DataError(ValueError):
    """Data that is missing or cannot be used; the message says what, where and what to do."""


@dataclass
class Split:
    """Images ``read(i)`` with integer ``labels[i]`` and names ``keys[i]``."""

    read: Callable[[int], RawImage]
    labels: np.ndarray
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, chosen: np.ndarray) -> "Split":
        """The split of these indices, in this order."""
        return Split(lambda i: self.read(int(chosen[i])), self.labels[chosen], [self.keys[i] for i in chosen])

    def __add__(self, other: "Split") -> "Split":
        count = len(self)
        return Split(
            lambda i: self.read(i) if i < count else other.read(i - count),
            np.concatenate((self.labels, other.labels)),
            self.keys + other.keys,
        )


@dataclass
class Source:
    """An opened data set: class names in label order, and the splits "train", "val" and "test"; any may be absent.

    ``version`` goes into the result: what exactly was read.
    """

    class_names: list[str]
    splits: dict[str, Split]
    version: str


def files_split(root: Path, items: list[tuple[str, int]]) -> Split:
    """A split of image files: (path below ``root``, label) each."""
    paths = [path for path, _ in items]
    return Split(lambda i: (root / paths[i]).read_bytes(), np.array([label for _, label in items], int), paths)


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of ``count`` items, each class in proportion (largest remainder), the same for the same seed.

    One item of every class stays behind as long as there is another class to take from.
    """
    order = np.random.RandomState(seed).permutation(len(labels))  # its stream is frozen across numpy's releases
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    shares = np.floor(exact).astype(int)
    by_remainder = np.argsort(shares - exact, kind="stable")
    for spare in (1, 0):  # first leave one item of each class, then take what is still wanted
        while shares.sum() < count and (open_to := [i for i in by_remainder if shares[i] + spare < sizes[i]]):
            shares[open_to[: count - shares.sum()]] += 1
    chosen = [order[labels[order] == c][:share] for c, share in zip(classes, shares, strict=True)]
    return np.sort(np.concatenate(chosen))
