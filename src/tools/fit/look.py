"""A look at the images: what is broken, how large they are, and which show the same picture."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.decode import decode, why
from ...data.sources.base import printable
from ...utils.io import read_json, write_atomic, write_json
from ...utils.progress import tqdm
from ...utils.threads import in_order, threads
from .images import Images

SIDE = 16  # of the small pictures that are compared
FLOOR = 4.0  # least contrast, standard deviation of values in 0..255: noise of an even picture is no content
ALIKE = 0.98  # least correlation of near-duplicates
# In a set whose pictures are much alike (digits), near-duplicates are more so: ten times closer than the nearest
# neighbour of its loneliest tenth. Calibrated on digits, hand signs and CIFAR-10 with forged copies.
CLOSER, LONELY = 10, 0.1
SURE = 0.998  # always the same picture
MOST = 50_000  # images that are compared pair by pair
ROWS = 1024  # compared at a time
TWINS = 20  # pairs that are kept of an image with those before it: of a film every image is like every other


@dataclass(frozen=True)
class Look:
    """What was seen, per image that can be decoded.

    Attributes:
        usable: (N,) bool of all images.
        broken: (file, why).
        hashes: (M,) uint64, of the file's bytes.
        sizes: (M, 2) width and height.
        pictures: (M, SIDE, SIDE, 3) uint8.
    """

    usable: np.ndarray
    broken: list[tuple[str, str]]
    hashes: np.ndarray
    sizes: np.ndarray
    pictures: np.ndarray


def look(images: Images, folder: Path, workers: int) -> Look:
    """Read every image once; what was seen is kept in ``folder`` for the same files."""
    digest = digest_of(images)
    file, about = folder / "look.npz", folder / "look.json"
    if about.is_file() and file.is_file() and (seen := read_json(about))["digest"] == digest:
        with np.load(file, allow_pickle=False) as arrays:
            return Look(arrays["usable"], [tuple(pair) for pair in seen["broken"]], *(arrays[n] for n in NAMES))
    found = _read(images, workers)
    arrays = {"usable": found.usable} | {name: getattr(found, name) for name in NAMES}

    def write(path: Path) -> None:
        with open(path, "wb") as out:
            np.savez(out, **arrays)

    write_atomic(file, write)
    write_json(about, {"digest": digest, "broken": found.broken})
    return found


NAMES = ("hashes", "sizes", "pictures")


def digest_of(images: Images) -> str:
    """A hash of names, labels, splits, sizes and times: it changes when the images do."""
    digest = hashlib.blake2b(digest_size=10)
    for i, name in enumerate(images.files):
        facts = os.stat(images.path(i))
        group = images.groups[i] if images.groups else ""
        line = f"{name}\0{images.labels[i]}\0{images.splits[i]}\0{group}\0{facts.st_size}\0{facts.st_mtime_ns}\0"
        digest.update(line.encode(errors="surrogateescape"))
    digest.update("\0".join(images.class_names).encode())
    return digest.hexdigest()


def _read(images: Images, workers: int) -> Look:
    def one(i: int) -> tuple | str:
        try:
            raw = images.path(i).read_bytes()
            pixels = decode(raw)
        except Exception as error:  # decoders raise anything for broken files; all are listed
            return why(error)
        small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)
        number = int.from_bytes(hashlib.sha1(raw, usedforsecurity=False).digest()[:8], "little")
        return number, (pixels.shape[1], pixels.shape[0]), np.asarray(small)

    usable = np.ones(len(images), bool)
    broken, hashes, sizes, pictures = [], [], [], []
    bar = tqdm(desc="looking at the images", total=len(images), unit="img", delay=1, leave=False)
    with threads(workers) as pool, bar:
        for i, seen in enumerate(in_order(pool, one, range(len(images)), ahead=2 * workers + 2)):
            bar.update()
            if isinstance(seen, str):
                usable[i] = False
                broken.append((printable(images.files[i]), seen))
                continue
            hashes.append(seen[0])
            sizes.append(seen[1])
            pictures.append(seen[2])
    return Look(
        usable,
        broken,
        np.array(hashes, np.uint64),
        np.array(sizes, int).reshape(-1, 2),
        np.array(pictures, np.uint8).reshape(-1, SIDE, SIDE, 3),
    )


# ---- which show the same picture


@dataclass(frozen=True)
class Alike:
    """Pairs of images (i < j) that show the same picture, their correlation, and how alike the set is as a whole.

    Attributes:
        exact: (P,) bool, the files are the same byte for byte.
        threshold: the least correlation of a pair.
        typical: the median correlation of two images at random.
        compared: False where there are too many images, and only files were compared.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    exact: np.ndarray
    threshold: float
    typical: float
    compared: bool


def alike(found: Look) -> Alike:
    """Near-duplicates: copies, other sizes, other compression, a little brighter; no crops, no mirror images."""
    count = len(found.hashes)
    pairs = {pair: 1.0 for pair in _same_files(found.hashes)}
    exact = set(pairs)
    threshold, typical, compared = ALIKE, 0.0, 2 <= count <= MOST
    if compared:
        x = standardised(found.pictures)
        nearest = np.concatenate([part.max(1) for _, part in _blocks(x)])
        threshold = min(SURE, max(ALIKE, 1 - (1 - float(np.quantile(nearest, LONELY))) / CLOSER))
        for first, part in _blocks(x):
            for row in np.flatnonzero((part >= threshold).any(1)).tolist():
                before = part[row, : first + row]
                twins = np.flatnonzero(before >= threshold)
                for j in twins[np.argsort(-before[twins], kind="stable")][:TWINS].tolist():
                    pairs.setdefault((j, first + row), float(before[j]))
        random = np.random.RandomState(0)
        one, other = random.randint(count, size=(2, 2000))
        apart = one != other
        typical = float(np.median((x[one[apart]] * x[other[apart]]).sum(1)))
    listed = sorted(pairs)
    return Alike(
        np.array(listed, int).reshape(-1, 2),
        np.array([min(1.0, pairs[pair]) for pair in listed]),
        np.array([pair in exact for pair in listed], bool),
        threshold,
        typical,
        compared,
    )


def standardised(pictures: np.ndarray) -> np.ndarray:
    """(M, SIDE, SIDE, 3) -> (M, D) float32 whose inner products are correlations of the pictures."""
    x = pictures.reshape(len(pictures), -1).astype(np.float32)
    x -= x.mean(1, keepdims=True)
    return x / np.maximum(x.std(1, keepdims=True), FLOOR) / np.sqrt(x.shape[1])


def _blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(First row, correlations of some rows with all), without those of an image with itself.

    Even pictures correlate with nothing, not even their copies; their files may still be the same.
    """
    for first in range(0, len(x), ROWS):
        part = x[first : first + ROWS] @ x.T
        part[np.arange(len(part)), first + np.arange(len(part))] = -1
        yield first, part


def _same_files(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Each image whose file occurs before, with the first of these."""
    first: dict[int, int] = {}
    for i, number in enumerate(hashes.tolist()):
        if number in first:
            yield first[number], i
        first.setdefault(number, i)


def groups_of(count: int, pairs: np.ndarray, names: list[str]) -> np.ndarray:
    """(N,) integers: images that are linked by pairs, or by a name, have the same."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    links = [(first.setdefault(name, i), i) for i, name in enumerate(names)]
    for i, j in (*pairs.tolist(), *links):
        one, other = sorted((root(i), root(j)))
        parent[other] = one
    return np.array([root(i) for i in range(count)], int)
