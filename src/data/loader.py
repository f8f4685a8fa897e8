"""Batches on the device: images are decoded once, by threads, kept as uint8 and normalised where they are used."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from ..models.vit_backbones.zoo import IMAGENET, input_mean_std
from . import transforms
from .sources.base import DataError, Source, Split, stratified
from .sources.digits import Digits
from .tasks import Task, find_task

logger = logging.getLogger(__name__)

CROP_MARGIN = 8 / 7  # 256 for a crop of 224, 438 for 384, 512 for 448: VPT's sizes


@dataclass(frozen=True)
class Pixels:
    """How files become inputs; it goes into every result."""

    size: tuple[int, int]  # height, width
    augment: str  # "none" or "crop_flip"
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def prepare(self, raw) -> Tensor:
        """What is cached: uint8, of the input size, or for crop_flip the whole resized image."""
        pixels = transforms.decode(raw)
        if self.augment == "none":
            return transforms.resize(pixels, self.size)
        return transforms.resize_shorter(pixels, round(min(self.size) * CROP_MARGIN), self.size)

    def input(self, raw) -> Tensor:
        """One image as the model sees it in evaluation: float32 (3, H, W). For single images; loaders do batches."""
        pixels = self.prepare(raw)
        if self.augment == "crop_flip":
            pixels = transforms.center_crop(pixels, self.size)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return transforms.normalise(pixels[None], mean, std)[0]


class Images:
    """One split's images, decoded once as far as the memory given allows.

    Args:
        budget: bytes of decoded images that may be kept; what this split uses is in ``nbytes``.
    """

    def __init__(self, split: Split, pixels: Pixels, budget: float, workers: int):
        self.split, self.pixels = split, pixels
        self.cached: list[Tensor | None] = [None] * len(split)
        self.budget, self.nbytes, self.workers = budget, 0, workers
        self.corrupt: list[str] = []

    def read_all(self, name: str) -> None:
        """Decode every image, keep what fits, and note in ``corrupt`` those that cannot be decoded."""
        usable = np.ones(len(self.split), bool)
        with self._pool() as pool:
            results = pool.map(self._try, range(len(self.split)))
            for i, image in enumerate(tqdm(results, f"reading {name}", len(self.split), unit="img", delay=1)):
                if isinstance(image, str):
                    self.corrupt.append(image)
                    usable[i] = False
                elif self.nbytes + image.nbytes <= self.budget:
                    self.cached[i] = image
                    self.nbytes += image.nbytes
        if self.corrupt:
            kept = np.flatnonzero(usable)
            self.split, self.cached = self.split.take(kept), [self.cached[i] for i in kept]

    def _try(self, i: int) -> Tensor | str:
        try:
            return self.pixels.prepare(self.split.read(i))
        except Exception as error:  # whatever decoders raise for broken files; it is listed, never hidden
            return f"{self.split.keys[i]}: {type(error).__name__}: {error}"

    def get(self, indices: Tensor) -> list[Tensor]:
        """uint8 images (3, H, W); H and W are the input's, or larger where there is something to crop."""
        wanted = indices.tolist()
        if missing := [i for i in wanted if self.cached[i] is None]:
            with self._pool() as pool:
                decoded = pool.map(lambda i: self.pixels.prepare(self.split.read(i)), missing)
                fresh = dict(zip(missing, decoded, strict=True))
            return [fresh[i] if self.cached[i] is None else self.cached[i] for i in wanted]
        return [self.cached[i] for i in wanted]

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that each use one core: torch's own threads inside them would only get in each other's way."""
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(max(1, self.workers), initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield pool
        finally:
            torch.set_num_threads(threads)  # what worker threads set also holds for threads that start later


class Loader:
    """Batches of one split: float32 images (B, 3, H, W) and int64 labels (B,), on the device.

    ``epoch(e)`` of a training loader shuffles and augments, the same for the same seed and e whatever came before;
    iterating goes through the images in their order, without augmentation.
    """

    def __init__(self, images: Images, batch_size: int, device: torch.device, seed: int = 0):
        self.images, self.batch_size, self.device, self.seed = images, batch_size, device, seed
        self.labels = torch.from_numpy(images.split.labels)
        pixels = images.pixels
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (pixels.mean, pixels.std))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(split_batches(torch.arange(len(self.labels)), self.batch_size))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.arange(len(self.labels)).split(self.batch_size):
            yield self._batch(indices, None)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of epoch ``number``."""
        order, draws = batch_order(len(self.labels), self.seed, number)
        for indices in split_batches(order, self.batch_size):
            yield self._batch(indices, draws)

    def _batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        size, images = self.images.pixels.size, self.images.get(indices)
        if self.images.pixels.augment == "crop_flip" and draws is not None:
            images = [transforms.random_crop_flip(x, size, draws[i]) for x, i in zip(images, indices, strict=True)]
        elif self.images.pixels.augment == "crop_flip":
            images = [transforms.center_crop(x, size) for x in images]
        batch = torch.stack(images).to(self.device, non_blocking=True)
        return transforms.normalise(batch, self.mean, self.std), self.labels[indices].to(self.device)


def batch_order(count: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """A permutation of ``count`` images, and three numbers in [0, 1) for each image's augmentation."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator), torch.rand(count, 3, generator=generator)


def split_batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """Batches of ``batch_size``, the last as small as it comes; but one image alone, on which a batch norm in the head
    could not train, joins the batch before."""
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


@dataclass
class Data:
    """A task opened for one run: sizes and names are known, pixels are read by ``loaders``."""

    task: Task
    class_names: list[str]
    splits: dict[str, Split]  # "train" (what trains), "val" (unless trained on), "test" (unless DATA.NO_TEST)
    train_split: str
    version: str
    pixels: Pixels

    def loaders(self, cfg: CfgNode, device: torch.device) -> tuple[dict[str, Loader], list[str]]:
        """A loader per split, and the files left out because they cannot be decoded. Decodes every image once.

        Raises:
            DataError: such files and DATA.CORRUPT "stop", or a split or class of which nothing is left.
        """
        budget, corrupt, images = cfg.DATA.CACHE_GB * 2**30, [], {}
        for name, split in self.splits.items():
            images[name] = Images(split, self.pixels, budget, cfg.DATA.NUM_WORKERS)
            images[name].read_all(name)
            budget -= images[name].nbytes
            corrupt += images[name].corrupt
            self.splits[name] = images[name].split  # without what cannot be decoded
        if corrupt and cfg.DATA.CORRUPT == "stop":
            listed = "\n".join(f"  - {line}" for line in corrupt[:50])
            raise DataError(
                f"{len(corrupt)} image files cannot be decoded:\n{listed}\n"
                "Repair or remove them, or set DATA.CORRUPT skip to leave them out"
            )
        if empty := [name for name, kept in images.items() if not len(kept.split)]:
            raise DataError(f"no readable image is left in {', '.join(empty)}")
        batch = cfg.DATA.BATCH_SIZE
        sizes = {name: batch if name == "train" else cfg.DATA.EVAL_BATCH_SIZE or batch for name in images}
        return {name: Loader(images[name], sizes[name], device, cfg.SEED) for name in images}, corrupt


def open_data(cfg: CfgNode) -> Data:
    """Find the task's files and labels; no image is read.

    Raises:
        DataError: data that is missing or contradicts the config.
    """
    task = find_task(cfg.DATA.NAME)
    if not cfg.DATA.DATAPATH and task.source is not Digits:
        raise DataError(f"DATA.DATAPATH is not set: it must name the folder that holds {task.name}")
    source = task.source(Path(cfg.DATA.DATAPATH), task.folder, cfg.DATA.VAL_FRACTION)
    names = _class_names(cfg, task, source)
    train_split = cfg.DATA.TRAIN_SPLIT or task.train_split
    train = source.splits["train"]
    if train_split == "trainval":
        train = train + source.splits["val"]
    if cfg.DATA.PERCENTAGE < 1:
        have = set(train.labels.tolist())
        train = train.take(stratified(train.labels, max(1, round(len(train) * cfg.DATA.PERCENTAGE)), seed=0))
        if lost := sorted(have - set(train.labels.tolist())):
            listed = ", ".join(names[i] for i in lost)
            logger.warning("note: DATA.PERCENTAGE %g leaves no image of class %s", cfg.DATA.PERCENTAGE, listed)
    splits = {"train": train}
    if train_split == "train" and len(source.splits["val"]):
        splits["val"] = source.splits["val"]
    if "test" in source.splits and not cfg.DATA.NO_TEST:
        splits["test"] = source.splits["test"]
    if list(splits) == ["train"]:
        raise DataError("there is neither a validation nor a test set, so nothing could be measured")
    mean, std = IMAGENET if cfg.DATA.PIXELS == "vpt" else input_mean_std(cfg.DATA.FEATURE)
    size = tuple(cfg.DATA.IMAGE_SIZE) or (cfg.DATA.CROPSIZE, cfg.DATA.CROPSIZE)
    pixels = Pixels(size, cfg.DATA.AUGMENT or task.augment, mean, std)
    return Data(task, names, splits, train_split, source.version, pixels)


def _class_names(cfg: CfgNode, task: Task, source: Source) -> list[str]:
    """The source's class names, or more of them where the task has classes that no list file mentions."""
    wanted = task.num_classes or cfg.DATA.NUMBER_CLASSES
    have = len(source.class_names)
    if wanted != -1 and (have > wanted or (have < wanted and not task.num_classes)):
        raise DataError(
            f"{cfg.DATA.DATAPATH} has {have} classes, but {task.name} should have {wanted}: "
            + ("is this the right folder?" if task.num_classes else "correct DATA.NUMBER_CLASSES, or leave it at -1")
        )
    return source.class_names + [str(i) for i in range(have, max(wanted, have))]
