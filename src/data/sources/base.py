"""What a data source is: splits of encoded or raw images with labels and names, read one at a time and in any order."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

# An encoded image file as it is on disk, or pixels: uint8, (H, W) or (H, W, 1) grey or (H, W, 3) RGB.
RawImage = bytes | np.ndarray

# What photographs come in, by Pillow's names, and how such files' names end; no other format is ever tried.
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
    """Data that is missing or cannot be used; the message says what, where and what to do."""


@dataclass
class Split:
    """Images ``read(i)`` with integer ``labels[i]`` and names ``keys[i]``; threads may read at the same time.

    ``stamp(i)`` says which bytes ``read(i)`` gives: it changes when the file that holds them does.
    """

    read: Callable[[int], RawImage]
    labels: np.ndarray
    keys: list[str]
    stamp: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, chosen: np.ndarray) -> "Split":
        """The split of these indices, in this order."""
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
        version: what exactly was read; it goes into the result.
        class_mask: where the set has some of the classes only (ImageNet-R and -A), the sorted labels of those.
        notes: what a reader of the result must know of these images.
    """

    class_names: list[str]
    splits: dict[str, Split]
    version: str
    class_mask: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What the config asks of a data set, where there is a choice.

    Attributes:
        val_fraction: of the training images, where the set has no validation images of its own.
        test_fraction: of all images, where class folders come without a split.
        shots: training images of each class, 0 for all.
        split_seed: which of several published splits, or the seed that draws one.
        version: of a TFDS directory that holds several; "" for the best.
        lists: list files to use instead of the set's own: split -> path.
    """

    val_fraction: float = 0.2
    test_fraction: float = 0.2
    shots: int = 0
    split_seed: int = 0
    version: str = ""
    lists: dict[str, str] = field(default_factory=dict)


class Layout(ABC):
    """One way in which a data set lies on disk. A task names the layouts that it can be read from, the best first."""

    kind: ClassVar[str]  # the name by which DATA.SOURCE chooses it
    takes: ClassVar[tuple[str, ...]] = ()  # the choices in ``Wanted`` that it knows, by their keys under DATA

    @abstractmethod
    def find(self, root: Path) -> Path | None:
        """Where the data set is, given DATA.DATAPATH; None if it is not there in this layout."""

    @abstractmethod
    def open(self, here: Path, wanted: Wanted) -> Source:
        """Read labels and names, no image.

        Raises:
            DataError: files that are missing, broken or contradict each other.
        """

    def fits(self, here: Path, num_classes: int) -> bool:
        """Whether what is at ``here`` can be this task, as far as a quick look tells."""
        return True

    def hint(self, root: Path) -> str:
        """Why ``find`` found nothing, where there is something to say; "" otherwise."""
        return ""

    @abstractmethod
    def expects(self) -> str:
        """What must be where below DATA.DATAPATH and how to get it, in a sentence."""


MOST_CLASSES = 100_000  # beyond, there must be an image for each class


def count_classes(splits: dict[str, Split], where: str) -> int:
    """One more than the largest label; ``where`` says whose, for people.

    Raises:
        DataError: a label that is absurd for so many images; nothing of its size is allocated.
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
    """Image files: (path below ``root``, label) each."""

    def __init__(self, root: Path, items: list[tuple[str, int]]):
        paths = [path for path, _ in items]
        keys = [printable(path) for path in paths]

        def stamp(i: int) -> str:
            facts = (root / paths[i]).stat()
            return f"{keys[i]} {facts.st_size} {facts.st_mtime_ns}"

        labels = np.array([label for _, label in items], int)
        super().__init__(lambda i: (root / paths[i]).read_bytes(), labels, keys, stamp)


def require_files(root: Path, items: list[tuple[str, int]], listed_in: str) -> None:
    """Every file of a list is there.

    Raises:
        DataError: some are not; the message counts them all and names the first.
    """
    if missing := [path for path, _ in items if not os.path.isfile(os.path.join(root, path))]:
        some = ", ".join(map(shown, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{len(missing):,} of the {len(items):,} images listed in {listed_in} are missing below {root.absolute()}: "
            + some
            + backslash_hint(missing)
        )


def backslash_hint(paths: list[str]) -> str:
    """What to do where paths were written on Windows; "" where they were not."""
    windows = any("\\" in path for path in paths)
    return " (the names have backslashes: write / instead, sed 's|\\\\|/|g' does)" if windows else ""


def shown(text: str) -> str:
    """The beginning of what someone else wrote, for a message."""
    return printable(text if len(text) <= 200 else f"{text[:200]}...")


def printable(name: str) -> str:
    r"""A name as it can be printed and stored: bytes that are not UTF-8, which file names may hold, as "\xe9"."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of ``count`` items, each class in proportion (largest remainder), the same for the same seed.

    One item of every class stays behind as long as there is another class to take from.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    return _pick(labels, _shares(sizes, count), seed)


def cut(labels: np.ndarray, fraction: float, seed: int, least: int = 0) -> np.ndarray:
    """Sorted indices of about that fraction of the items, each class in proportion, never the last one of a class.

    Args:
        least: items of every class that has more than so many.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    shares = np.maximum(_shares(sizes, round(fraction * len(labels))), least)
    return _pick(labels, np.minimum(shares, sizes - 1), seed)


def _shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many of each class, ``count`` in all, by largest remainder; the last of a class when nothing else is left."""
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
