"""A task opened for one run: its files found and its labels checked, then loaders for its images."""

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode

from ..configs import facts
from ..utils.paths import user_cache
from .cache import GIB, Cache, ScannedSplit, duplicates
from .loader import Images, Loader
from .pixels import Pixels, build_pixels
from .sources.base import DataError, Layout, Source, Split, Wanted, printable, stratified
from .tasks import Task, find_task, implied_layout

logger = logging.getLogger(__name__)

DIM = 127  # of 255: if no pixel is brighter, the values were probably scaled from the wrong range

ONLY_SOME = ("SHOTS", "VERSION", "TRAIN_LIST", "VAL_LIST", "TEST_LIST")  # keys that only some layouts support


@dataclass
class Data:
    """An opened data set: sizes and names are known; ``loaders`` reads the pixels.

    Attributes:
        splits: "train" (what is trained on), "val" (unless trained on), "test" (unless DATA.NO_TEST).
        layout: how the files lie on disk, "tfds", "noah", ...; ``version``: which files exactly.
        class_mask: the labels that occur, if the set has only some of the classes by design.
        notes: what a reader of the result must know.
        contents: a hash of each split's images, set by ``loaders``.
    """

    task: Task
    class_names: list[str]
    splits: dict[str, Split]
    train_split: str
    layout: str
    version: str
    pixels: Pixels
    class_mask: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)

    def identity(self) -> dict:
        """What must stay the same when a run is resumed: class names; names, labels and images of each split."""
        splits = {
            name: {"images": len(split), "names": _digest_of(split), "contents": self.contents.get(name)}
            for name, split in self.splits.items()
        }
        return {"class_names": self.class_names, "splits": splits, "pixels": repr(self.pixels)}

    def loaders(self, cfg: CfgNode, device: torch.device | str) -> tuple[dict[str, Loader], list[str]]:
        """A loader per split, and the files left out because they cannot be decoded.

        Every image is decoded once, unless an earlier run did so and kept the pixels (DATA.CACHE).

        Raises:
            DataError: such files while DATA.CORRUPT is "stop", or a split with no images left.
        """
        data = cfg.DATA
        scanned = {}
        device = torch.device(device)
        cache = Cache(cache_folder(data.CACHE_DIR), data.CACHE_GB * GIB, data.NUM_WORKERS)
        for name, split in self.splits.items():
            keep = data.CACHE == "all" or (data.CACHE == "train" and name != "test")
            scanned[name] = cache.open(split, self.pixels, name == "train", f"{self.task.name} {name}", keep)
            self.splits[name] = scanned[name].split  # without images that cannot be decoded
            self.contents[name] = hashlib.blake2b(scanned[name].hashes, digest_size=10).hexdigest()
        corrupt = [line for split in scanned.values() for line in split.left_out]
        if corrupt and data.CORRUPT == "stop":
            listed = "\n".join(f"  - {line}" for line in corrupt[:50])
            raise DataError(
                f"{len(corrupt)} image files cannot be decoded:\n{listed}\n"
                "Repair or remove them, or set DATA.CORRUPT skip to leave them out"
            )
        if empty := [name for name, split in scanned.items() if not len(split.split)]:
            raise DataError(f"no readable images are left in {', '.join(empty)}")
        if (brightest := max(split.brightest for split in scanned.values())) <= DIM:
            self._note(
                f"the brightest pixel of {', '.join(scanned)} is {brightest:g} of 255: if these files have more than 8 "
                "bits, set DATA.WHITE to their white level (4095 for 12 bits, 16383 for 14)"
            )
        for name in ("val", "test"):
            if {"train", name} <= scanned.keys() and (same := duplicates(scanned["train"], scanned[name])):
                some = ", ".join(f"{twin} = {other}" for twin, other in same[:3]) + (", ..." if len(same) > 3 else "")
                self._note(f"{len(same):,} images of {name} are byte for byte also among the training images: {some}")
        for name, split in scanned.items():
            if odd := contradictions(split):
                some = ", ".join(f"{twin} = {other}" for twin, other in odd[:3]) + (", ..." if len(odd) > 3 else "")
                self._note(f"{len(odd):,} images of {name} occur there again with another label, byte for byte: {some}")
        if data.DROP_LAST and "train" in scanned and len(scanned["train"].split) < data.BATCH_SIZE:
            raise DataError(
                f"{len(scanned['train'].split):,} training images do not fill one batch of {data.BATCH_SIZE}, and "
                "DATA.DROP_LAST drops smaller batches: use a smaller DATA.BATCH_SIZE, or set DATA.DROP_LAST False"
            )
        evaluated = facts.evaluation_batch(cfg, device.type)
        sizes = {name: data.BATCH_SIZE if name == "train" else evaluated for name in scanned}
        loaders = {
            name: Loader(
                Images(split, self.pixels, name == "train", data.NUM_WORKERS, data.CACHE_PLACE, device),
                sizes[name],
                device,
                cfg.SEED,
                len(self.class_names),
                data.DROP_LAST and name == "train",
            )
            for name, split in scanned.items()
        }
        return loaders, corrupt

    def _note(self, text: str) -> None:
        logger.warning("note: %s", printable(text))
        self.notes.append(printable(text))


def _digest_of(split: Split) -> str:
    """A hash of names and labels, in order."""
    digest = hashlib.blake2b("\0".join(split.keys).encode(), digest_size=10)
    digest.update(np.ascontiguousarray(split.labels, np.int64))
    return digest.hexdigest()


def contradictions(scanned: ScannedSplit) -> list[tuple[str, str]]:
    """(Twin, name) of every image whose file occurs earlier in the split with another label."""
    order = np.argsort(scanned.hashes, kind="stable")
    hashes, labels = scanned.hashes[order], scanned.split.labels[order]
    first = np.searchsorted(hashes, hashes)  # index of the first image with the same file
    odd = np.flatnonzero(labels != labels[first])
    pairs = sorted(zip(order[odd].tolist(), order[first[odd]].tolist(), strict=True))
    return [(scanned.split.keys[twin], scanned.split.keys[i]) for i, twin in pairs]


def open_data(cfg: CfgNode) -> Data:
    """Find the task's files and read its labels; no images are decoded.

    Raises:
        DataError: data are missing or contradict the config.
    """
    task, layout, source = _open_source(cfg)
    if "train" not in source.splits:
        raise DataError(f"{task.name} has no training images: it is only a test set, for runs trained on another task")
    train_split = facts.train_split(cfg)
    train = source.splits["train"]
    if train_split == "trainval" and "val" in source.splits:
        train = train + source.splits["val"]
    if cfg.DATA.PERCENTAGE < 1:
        train = train.take(stratified(train.labels, max(1, round(len(train) * cfg.DATA.PERCENTAGE)), seed=0))
    splits = {"train": train}
    if train_split == "train" and len(source.splits.get("val", ())):
        splits["val"] = source.splits["val"]
    if "test" in source.splits and not cfg.DATA.NO_TEST:
        splits["test"] = source.splits["test"]
    if list(splits) == ["train"] and not cfg.DATA.UNMEASURED:
        raise DataError("there is neither a validation nor a test set, so accuracy could not be measured")
    data = _data(cfg, task, layout, source, splits, train_split)
    if "test" not in splits and not cfg.DATA.NO_TEST:
        data._note(f"there are no test images in {cfg.DATA.DATAPATH}: the result has no test accuracy")
    if "val" not in splits and train_split == "train":
        data._note("there are no validation images: accuracy is measured only after training")
    return data


def open_test(cfg: CfgNode) -> Data:
    """Only the task's test images, for models trained on another task; ImageNet's variants have nothing else.

    Raises:
        DataError: data are missing or contradict the config, or there is no test set.
    """
    task, layout, source = _open_source(cfg)
    if "test" not in source.splits:
        raise DataError(f"{task.name}, read as {layout.kind} from {cfg.DATA.DATAPATH}, has no test set")
    return _data(cfg, task, layout, source, {"test": source.splits["test"]}, "")


def _data(cfg: CfgNode, task: Task, layout: Layout, source: Source, splits: dict[str, Split], train_split: str) -> Data:
    """Those splits of an opened source, with their labels checked."""
    data = Data(
        task,
        _class_names(cfg, task, source),
        splits,
        train_split,
        layout.kind,
        source.version,
        build_pixels(cfg, task.protocol),
        source.class_mask,
    )
    for note in source.notes:
        data._note(note)
    _check_labels(data, source)
    return data


def _open_source(cfg: CfgNode) -> tuple[Task, Layout, Source]:
    task = find_task(cfg.DATA.NAME)
    layout, folder = find_layout(cfg, task)
    if useless := [key for key in ONLY_SOME if cfg.DATA[key] and key not in layout.takes]:
        keys = ", ".join(f"DATA.{key}" for key in useless)
        raise DataError(f"{keys} has no effect on {task.name}, read as {layout.kind} from {folder}: leave it out")
    source = layout.open(folder, wanted(cfg))
    logger.info("data: %s, read as %s from %s: %s", task.name, layout.kind, printable(str(folder)), source.version)
    return task, layout, source


def find_layout(cfg: CfgNode, task: Task) -> tuple[Layout, Path]:
    """How the task is stored on disk, and where.

    Raises:
        DataError: it was not found; the message says what is expected and how to get it.
    """
    kind = cfg.DATA.SOURCE or implied_layout(cfg.DATA.NAME)
    layouts = [layout for layout in task.layouts if kind in ("", layout.kind)]
    if not layouts:
        kinds = ", ".join(dict.fromkeys(layout.kind for layout in task.layouts))
        raise DataError(f"DATA.SOURCE is {kind!r}, but {task.name} can only be read as: {kinds}")
    root = Path(cfg.DATA.DATAPATH).expanduser()
    if not cfg.DATA.DATAPATH and layouts[0].kind != "digits":
        raise DataError(f"DATA.DATAPATH is not set: it must name the folder that holds {task.name}.\n{_ways(layouts)}")
    if cfg.DATA.DATAPATH and not root.is_dir():
        raise DataError(f"DATA.DATAPATH {root.absolute()} is not a folder.\n{_ways(layouts)}")
    places = [(layout, folder) for layout in layouts if (folder := layout.find(root)) is not None]
    if not places:
        hints = "".join(f"\n{hint}" for layout in layouts if (hint := layout.hint(root)))
        raise DataError(f"{task.name} is not in {root.absolute()} (DATA.DATAPATH).{hints}\n{_ways(layouts)}")
    if len(places) > 1:
        others = ", ".join(f"{layout.kind} ({folder})" for layout, folder in places[1:])
        logger.info("data: read as %s; also found: %s (DATA.SOURCE chooses)", places[0][0].kind, others)
    return places[0]


def _ways(layouts: list[Layout]) -> str:
    return "It can be read from any of:\n" + "\n".join(f"  - {layout.kind}: {layout.expects()}" for layout in layouts)


def wanted(cfg: CfgNode) -> Wanted:
    """The config's choices for the data set."""
    data = cfg.DATA
    lists = {"train": data.TRAIN_LIST, "val": data.VAL_LIST, "test": data.TEST_LIST}
    given = {name: path for name, path in lists.items() if path}
    return Wanted(data.VAL_FRACTION, data.TEST_FRACTION, data.SHOTS, data.SPLIT_SEED, data.VERSION, given)


def cache_folder(name: str) -> Path:
    """``DATA.CACHE_DIR``; "": the user's cache folder, or, for users without a home, a path where nothing is kept."""
    return Path(os.path.expanduser(name)) if name else user_cache() / "images"


def _class_names(cfg: CfgNode, task: Task, source: Source) -> list[str]:
    """The source's class names, padded with numbers if the task has classes that no list file mentions."""
    number = task.num_classes or cfg.DATA.NUMBER_CLASSES
    have = len(source.class_names)
    if number != -1 and (have > number or (have < number and not task.num_classes)):
        raise DataError(
            f"{cfg.DATA.DATAPATH} has {have} classes, but {task.name} should have {number}: "
            + ("is this the right folder?" if task.num_classes else "correct DATA.NUMBER_CLASSES, or leave it at -1")
        )
    return source.class_names + [str(i) for i in range(have, max(number, have))]


def _check_labels(data: Data, source: Source) -> None:
    """Raise for labels out of range; note classes without images and unexpected numbers of images."""
    count = len(data.class_names)
    for name, split in data.splits.items():
        if len(wrong := np.flatnonzero((split.labels < 0) | (split.labels >= count))):
            first = wrong[0]
            raise DataError(
                f"{len(wrong):,} labels of {name} are not in 0..{count - 1}: the first is {split.labels[first]}, of "
                f"{split.keys[first]}"
            )
        classes = np.arange(count) if data.class_mask is None else data.class_mask
        if name != "test" and len(absent := np.setdiff1d(classes, split.labels)):
            some = ", ".join(data.class_names[i] for i in absent[:5]) + (", ..." if len(absent) > 5 else "")
            data._note(f"{name} has no image of {len(absent)} of the {len(classes)} classes: {some}")
    for name, published in data.task.sizes.items():
        if name in source.splits and len(source.splits[name]) != published:
            data._note(f"{name} has {len(source.splits[name]):,} images; the benchmark has {published:,}")
