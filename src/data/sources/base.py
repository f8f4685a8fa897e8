"""Data sources: splits of encoded or raw images with labels and names, read one at a time and in any order."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

# An encoded image file as on disk, or pixels: uint8, grey (H, W) or (H, W, 1), or RGB (H, W, 3).
RawImage = bytes | np.ndarray

# Photo formats by Pillow's names, with the endings of their file names; other formats are never tried.
IMAGE_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
}
IMAGE_ENDINGS = tuple(ending for endings in IMAGE_FORMATS.values() for ending in endings)


class DataError(ValueError):
    """Data that are missing or cannot be used; the message says what, where and what to do."""


@dataclass
class Split:
    """Images ``read(i)`` with integer ``labels[i]`` and names ``keys[i]``; reading is thread-safe.

    ``stamp(i)`` identifies the bytes that ``read(i)`` returns: it changes when their file does.
    """

    read: Callable[[int], RawImage]
    labels: np.ndarray
    keys: list[str]
    stamp: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, chosen: np.ndarray) -> "Split":
        """The split with these indices, in this order."""
        return Split(
            lambda i: self.read(int(chosen[i])),
            self.labels[chosen],
            [self.keys[i] for i in chosen],
            lambda i: self.stamp(int(chosen[i])),
        )

    def __add__(self, other: "Split") -> "Split":
        count = len(self)
        return Split(
            lambda i: self.read(i) if i < count else other.read(i - count),
            np.concatenate((self.labels, other.labels)),
            self.keys + other.keys,
            lambda i: self.stamp(i) if i < count else other.stamp(i - count),
        )


@dataclass
class Source:
    """An opened data set: class names in label order, and the splits "train", "val" and "test"; any may be absent.

    Attributes:
        version: what exactly was read; recorded in the result.
        class_mask: the sorted labels of the classes present, if these are not all (ImageNet-R and -A).
        notes: what a reader of the result must know about the images.
    """

    class_names: list[str]
    splits: dict[str, Split]
    version: str
    class_mask: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """The config's choices for a data set.

    Attributes:
        val_fraction: of the training images, if the set has no validation images of its own.
        test_fraction: of all images, for class folders without a split.
        shots: training images per class, 0 for all.
        split_seed: the index of a published split, or the seed for drawing one.
        version: of a TFDS directory with several; "" for the best.
        lists: list files that replace the set's own: split -> path.
    """

    val_fraction: float = 0.2
    test_fraction: float = 0.2
    shots: int = 0
    split_seed: int = 0
    version: str = ""
    lists: dict[str, str] = field(default_factory=dict)


class Layout(ABC):
    """One way to store a data set on disk. A task names the layouts that it can be read from, the best first."""

    kind: ClassVar[str]  # its name in DATA.SOURCE
    takes: ClassVar[tuple[str, ...]] = ()  # the DATA keys of the choices in ``Wanted`` that it supports

    @abstractmethod
    def find(self, root: Path) -> Path | None:
        """The data set's folder below DATA.DATAPATH; None if it is not there in this layout."""

    @abstractmethod
    def open(self, folder: Path, wanted: Wanted) -> Source:
        """Read labels and names, but no images.

        Raises:
            DataError: files are missing, broken or contradict each other.
        """

    def fits(self, folder: Path, num_classes: int) -> bool:
        """Whether the data at ``folder`` can be this task's; only a quick check."""
        return True

    def hint(self, root: Path) -> str:
        """A possible reason why ``find`` returned None; "" if there is none to give."""
        return ""

    @abstractmethod
    def expects(self) -> str:
        """What must be where below DATA.DATAPATH, and how to get it, in one sentence."""


MOST_CLASSES = 100_000  # with more, there must be at least as many images


def count_classes(splits: dict[str, Split], where: str) -> int:
    """One more than the largest label; ``where`` names the data set in messages.

    Raises:
        DataError: a label is absurdly large for the number of images; nothing of that size is allocated.
    """
    most = max(MOST_CLASSES, sum(map(len, splits.values())))
    for name, split in splits.items():
        if len(wrong := np.flatnonzero((split.labels < 0) | (split.labels >= most))):
            first = wrong[0]
            raise DataError(
                f"{where}: {split.keys[first]} of {name} has the label {split.labels[first]}; labels count classes "
                "from 0"
            )
    return 1 + max(int(split.labels.max()) for split in splits.values() if len(split))


class FileSplit(Split):
    """Image files, given as (path below ``root``, label)."""

    def __init__(self, root: Path, items: list[tuple[str, int]]):
        paths = [path for path, _ in items]
        keys = [printable(path) for path in paths]

        def stamp(i: int) -> str:
            facts = (root / paths[i]).stat()
            return f"{keys[i]} {facts.st_size} {facts.st_mtime_ns}"

        labels = np.array([label for _, label in items], int)
        super().__init__(lambda i: (root / paths[i]).read_bytes(), labels, keys, stamp)


def require_files(root: Path, items: list[tuple[str, int]], listed_in: str) -> None:
    """Check that every file of a list exists.

    Raises:
        DataError: some are missing; the message has their number and the first names.
    """
    if missing := [path for path, _ in items if not os.path.isfile(os.path.join(root, path))]:
        some = ", ".join(map(shown, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{len(missing):,} of the {len(items):,} images listed in {listed_in} are missing below {root.absolute()}: "
            + some
            + backslash_hint(missing)
        )


def backslash_hint(paths: list[str]) -> str:
    """How to fix paths written on Windows; "" if these were not."""
    windows = any("\\" in path for path in paths)
    return " (the names have backslashes: replace them with /, for example with sed 's|\\\\|/|g')" if windows else ""


def shown(text: str) -> str:
    """The beginning of someone else's text, for a message."""
    return one_line(text if len(text) <= 200 else f"{text[:200]}...")


def one_line(text: str) -> str:
    r"""``printable``, with line breaks and other control characters as "\n" and the like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable(text))


def printable(name: str) -> str:
    r"""A name that can be printed and stored: bytes that are not UTF-8, allowed in file names, become "\xe9"."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of ``count`` items, each class in proportion (largest remainder), reproducible for a seed.

    One item of each class is left as long as other classes can supply the rest.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    return _pick(labels, _shares(sizes, count), seed)


def cut(labels: np.ndarray, fraction: float, seed: int, least: int = 0) -> np.ndarray:
    """Sorted indices of about ``fraction`` of the items, each class in proportion, never all items of a class.

    Args:
        least: the minimum number of items per class, for classes that have more than that.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    shares = np.maximum(_shares(sizes, round(fraction * len(labels))), least)
    return _pick(labels, np.minimum(shares, sizes - 1), seed)


def _shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """Items per class, ``count`` in all, by largest remainder; a class's last item only if nothing else is left."""
    exact = sizes * count / sizes.sum()
    shares = np.floor(exact).astype(int)
    by_remainder = np.argsort(shares - exact, kind="stable")
    for spare in (1, 0):
        while shares.sum() < count and (open_to := [i for i in by_remainder if shares[i] + spare < sizes[i]]):
            shares[open_to[: count - shares.sum()]] += 1
    return shares


def _pick(labels: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Sorted indices of ``shares[i]`` random items of the i-th class that occurs."""
    order = np.random.RandomState(seed).permutation(len(labels))  # its stream is frozen across numpy's releases
    sizes = np.unique(labels, return_counts=True)[1]
    by_class = np.split(order[np.argsort(labels[order], kind="stable")], np.cumsum(sizes)[:-1])
    return np.sort(np.concatenate([group[:share] for group, share in zip(by_class, shares, strict=True)]))
