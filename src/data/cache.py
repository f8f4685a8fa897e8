"""Decoded images on disk: each image of a split is read and decoded once, and later runs reuse it.

The files of a split in ``DATA.CACHE_DIR`` are named by a hash of everything that determines its pixels: the images'
names, file sizes and times, decoder, resize and library versions.

    <name>.json        number of images, which ones cannot be decoded, checksum of the pixels; written last
    <name>.hash.npy    a hash of every image file, used to find duplicates between splits
    <name>.npy         the pixels, if they are kept: see store.py
"""

import hashlib
import logging
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from torch import Tensor

from ..utils.io import read_json, waiting_for, write_atomic, write_json
from ..utils.progress import tqdm
from ..utils.threads import in_order, threads
from .decode import why
from .pixels import Pixels
from .resize import TF1
from .sources.base import DataError, RawImage, Split
from .store import GIB, Store, Writer, remove_unfinished, writable

logger = logging.getLogger(__name__)

FORMAT = 3


@dataclass(frozen=True)
class ScannedSplit:
    """A split after a first pass over its images.

    Attributes:
        split: the images that can be decoded.
        left_out: the others, as "name: the decoder's error".
        hashes: a uint64 per image file.
        store: the pixels, None if they are not kept.
        brightest: the largest pixel value, in 0..255.
        name: task and split, with a hash of everything that determines the pixels.
    """

    split: Split
    left_out: list[str]
    hashes: np.ndarray
    store: Store | None
    name: str = ""
    brightest: float = 255.0


class Cache:
    """A folder of decoded images, shared by several runs and processes.

    Args:
        folder: its path.
        limit: bytes of pixels that may be kept; opened stores count towards it.
        workers: decoding threads.
    """

    def __init__(self, folder: Path, limit: float, workers: int):
        self.folder = folder
        self.left = limit
        self.workers = workers

    def open(self, split: Split, pixels: Pixels, train: bool, name: str, keep: bool) -> ScannedSplit:
        """The split as found on disk, or after a first pass over its images.

        Args:
            name: task and split, for messages.
            keep: keep the pixels too, if they fit; otherwise ``store`` is None.
        """
        facts = {"format": FORMAT, "images": len(split)} | pixels.recipe(train) | _versions(pixels)
        base = self.folder / f"{name.replace(' ', '-')}-{_digest(facts, split)}"
        return replace(self._open(split, pixels, train, name, keep, base, facts), name=base.name)

    def _open(
        self, split: Split, pixels: Pixels, train: bool, name: str, keep: bool, base: Path, facts: dict
    ) -> ScannedSplit:
        if scanned := self._find(base, split, name, keep):
            return scanned
        if not writable(self.folder, "decoded images"):
            return self._first_pass(split, pixels, train, name, None, False, facts)
        with waiting_for(base.with_name(f".{base.name}.lock"), f"another process is reading {name}: waiting for it"):
            if scanned := self._find(base, split, name, keep):  # the other process has done the work
                return scanned
            remove_unfinished(base)
            return self._first_pass(split, pixels, train, name, base, keep, facts)

    def _find(self, base: Path, split: Split, name: str, keep: bool) -> ScannedSplit | None:
        """What is on disk, if it is complete and holds everything that is needed."""
        try:
            about, hashes = read_json(_file(base, ".json")), np.load(_file(base, ".hash.npy"))
            usable = np.delete(np.arange(len(split)), about["left_out_indices"])
            if len(hashes) != len(usable):
                return None
            store = Store.open(_file(base, ".npy"), about["shapes"]) if keep and about["kept"] else None
        except (OSError, ValueError, KeyError, EOFError):
            return None
        if keep and store is None and self._fits(about["bytes"], name, disk=True):
            return None  # there is now room to keep the pixels
        if store is not None and not store.is_whole(about, _file(base, ".npy"), name):
            return None
        if store is not None and not self._fits(store.nbytes, name):
            store = None
        self.left -= store.nbytes if store else 0
        scanned = split if len(usable) == len(split) else split.take(usable)
        return ScannedSplit(scanned, about["left_out"], hashes, store, brightest=about["brightest"])

    def _fits(self, size: float, name: str, disk: bool = False) -> bool:
        """Whether ``size`` bytes are left under the limit and, if ``disk``, free on disk. Logs a note if not."""
        free = shutil.disk_usage(self.folder).free if disk else float("inf")
        if size <= min(self.left, free):
            return True
        why = f"{max(self.left, 0) / GIB:.2f} GiB are left of DATA.CACHE_GB"
        if size > free:
            why = f"{free / GIB:.2f} GiB are free in {self.folder} (DATA.CACHE_DIR)"
        logger.warning(
            "note: %s is decoded again in every epoch: its decoded images take at least %.3g GiB, but only %s",
            name,
            size / GIB,
            why,
        )
        return False

    def _first_pass(
        self,
        split: Split,
        pixels: Pixels,
        train: bool,
        name: str,
        base: Path | None,
        keep: bool,
        facts: dict,
    ) -> ScannedSplit:
        """Read and decode every image, and record the results in files named ``base``."""

        def look(i: int) -> tuple[int, Tensor | str]:
            try:
                raw = split.read(i)
                return _hash(raw), pixels.prepare(raw, train)
            except Exception as error:  # decoders raise anything for broken files; all are listed
                return 0, f"{split.keys[i]}: {why(error)}"

        expected = len(split) * 3 * pixels.size[0] * pixels.size[1] * np.dtype(pixels.dtype).itemsize
        if pixels.recipe(train)["kept"] != "input":
            expected = 0  # not known yet
        writer = self._writer(base, expected, name) if keep else None
        hashes = np.zeros(len(split), np.uint64)
        broken = []
        left_out = []
        size = 0
        brightest = 0.0
        bar = tqdm(desc=f"reading {name}", total=len(split), unit="img", delay=1, leave=False)
        try:
            with threads(self.workers) as pool, bar:
                for i, (hashes[i], image) in enumerate(
                    in_order(pool, look, range(len(split)), ahead=2 * self.workers, chunk=8)
                ):
                    bar.update()
                    if isinstance(image, str):
                        broken.append(i)
                        left_out.append(image)
                        continue
                    size += image.nbytes
                    brightest = max(brightest, image.max().item())
                    writer = writer and self._add(writer, image, name)
            usable = np.delete(np.arange(len(split)), broken)
            scanned = ScannedSplit(
                split.take(usable) if broken else split, left_out, hashes[usable], None, brightest=brightest
            )
            if base is None:
                return scanned
            lists = {"left_out": left_out, "left_out_indices": broken}
            about = (
                facts
                | {"brightest": brightest, "bytes": size, "shapes": None, "kept": writer is not None and size > 0}
                | lists
            )
            return self._record(base, scanned, about, writer if size else None)
        finally:
            if writer is not None:
                writer.discard()

    def _writer(self, base: Path, expected: int, name: str) -> Writer | None:
        try:
            return Writer(_file(base, ".npy")) if self._fits(expected, name, disk=True) else None
        except OSError as error:
            logger.warning("note: decoded images of %s are not kept: %s", name, error)
            return None

    def _add(self, writer: Writer, image: Tensor, name: str) -> Writer | None:
        """``writer`` after adding the image; None, with a note, if there is no room for it."""
        try:
            if self._fits(writer.nbytes + image.nbytes, name):
                writer.add(image)
                return writer
        except OSError as error:
            logger.warning("note: decoded images of %s are not kept: %s: %s", name, self.folder, error.strerror)
        writer.discard()
        return None

    def _record(self, base: Path, scanned: ScannedSplit, about: dict, writer: Writer | None) -> ScannedSplit:
        store = None
        try:
            if writer is not None:
                about |= writer.finish()
                store = Store.open(_file(base, ".npy"), about["shapes"])
                self.left -= store.nbytes
            write_atomic(_file(base, ".hash.npy"), lambda path: _save(path, scanned.hashes))
            write_json(_file(base, ".json"), about)
        except OSError as error:
            logger.warning("note: the results of reading the images are not kept in %s: %s", self.folder, error)
        return replace(scanned, store=store)


def duplicates(reference: ScannedSplit, other: ScannedSplit) -> list[tuple[str, str]]:
    """(Name in ``reference``, name in ``other``) of every image of ``other`` whose file is also in ``reference``."""
    values, first = np.unique(reference.hashes, return_index=True)
    common = np.flatnonzero(np.isin(other.hashes, values))
    twins = first[np.searchsorted(values, other.hashes[common])]
    return [(reference.split.keys[i], other.split.keys[j]) for i, j in zip(twins, common, strict=True)]


def _file(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _versions(pixels: Pixels) -> dict:
    resizer = "torch"
    if pixels.interpolation == TF1:
        resizer = "opencv-python-headless"
    elif pixels.dtype == "uint8" and (pixels.antialias or pixels.interpolation == "bilinear"):
        resizer = "pillow" if pixels.antialias else "opencv-python-headless"
    packages = ("pillow" if pixels.decoder == "pil" else "simplejpeg", resizer)
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _digest(facts: dict, split: Split) -> str:
    digest = hashlib.blake2b(repr(sorted(facts.items())).encode(), digest_size=10)
    for i, key in enumerate(split.keys):
        try:
            digest.update(f"{key}\0{split.stamp(i)}\0".encode())
        except OSError as error:
            raise DataError(f"{key} cannot be read: {error}") from error
    return digest.hexdigest()


def _hash(raw: RawImage) -> int:
    data = raw if isinstance(raw, bytes) else np.ascontiguousarray(raw)
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "little")


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
