"""Batches on the device: uint8 from the cache, or decoded ahead by threads; normalised on the device."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from ..utils.threads import in_order, threads
from .augment import Augment, mixing, own_randomness, seed_all
from .cache import ScannedSplit
from .decode import why
from .pixels import Pixels, normalise
from .sources.base import DataError

AHEAD = 2  # batches decoded ahead

Part = tuple[int, int]  # (rank, number of processes)
ALL: Part = (0, 1)


class Images:
    """The images of one split, in any order, from memory, a memory map or their files.

    Args:
        train: keep what training needs, see ``Pixels.kept``.
        place: where kept images are: "disk" (a memory map), "memory" or "device".
    """

    def __init__(
        self,
        scanned: ScannedSplit,
        pixels: Pixels,
        train: bool,
        workers: int,
        place: str = "disk",
        device: torch.device | None = None,
    ):
        self.split = scanned.split
        self.pixels = pixels
        self.train = train
        self.workers = workers
        self.name = scanned.name
        self.left_out = scanned.left_out
        self.store = scanned.store.in_memory() if scanned.store and place == "memory" else scanned.store
        self.resident = None
        if place == "device" and self.stackable:
            self.resident = torch.from_numpy(np.asarray(self.store.array)).to(device)

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, batches: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Yield the images of each tensor of indices, (3, H, W) each, on the CPU."""
        if self.store is not None:
            for indices in batches:
                yield [self.store.image(i) for i in indices.tolist()]
            return
        wanted = [i for indices in batches for i in indices.tolist()]
        longest = max((len(indices) for indices in batches), default=0)
        with threads(self.workers) as pool:
            images = in_order(pool, self._decode, wanted, ahead=AHEAD * longest + 2 * self.workers)
            for indices in batches:
                yield [next(images) for _ in range(len(indices))]

    @property
    def stackable(self) -> bool:
        """Whether the images are kept as batches have them, all of the same shape."""
        return self.store is not None and self.store.shapes is None and not self.pixels.native

    def stacked(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each tensor of indices as (B, 3, H, W), in a buffer that the next batch overwrites."""
        array = self.store.array
        space = np.empty((max((len(b) for b in batches), default=0), *array.shape[1:]), array.dtype)
        for indices in batches:
            yield torch.from_numpy(np.take(array, indices.numpy(), axis=0, out=space[: len(indices)], mode="clip"))

    def _decode(self, i: int) -> Tensor:
        try:
            return self.pixels.prepare(self.split.read(i), self.train)
        except Exception as error:  # it was decodable before: the file changed or the disk is gone
            raise DataError(f"{self.split.keys[i]} can no longer be read: {why(error)}") from error


class Loader:
    """Batches of one split, on the device: float32 images (B, 3, H, W), or patches (B, N, W + 3); int64 labels (B,).

    ``epoch(e)`` of a training loader shuffles and augments; the result depends only on the seed and e, not on earlier
    epochs or the number of threads. With mixup or CutMix, labels are (B, C). ``in_order()`` yields the images in their
    stored order, without augmentation.

    Several processes share the work by passing their ``part`` (rank, count): each gets every count-th image of a batch,
    or of the split in ``in_order``.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        num_classes: int = 0,
        drop_last: bool = False,
    ):
        self.images = images
        self.batch_size = batch_size
        self.device = device
        self.seed = seed
        self.drop_last = drop_last
        self.labels = torch.from_numpy(images.split.labels)
        self.device_labels = self.labels.to(device)
        pixels = images.pixels
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (pixels.mean, pixels.std))
        self.augment = Augment(pixels)
        self.mixing = mixing(pixels, num_classes)

    def altered(self, seed: int | None = None, batch_size: int | None = None) -> "Loader":
        """The same images in another order, or in other batches."""
        other = copy.copy(self)
        other.seed = self.seed if seed is None else seed
        other.batch_size = self.batch_size if batch_size is None else batch_size
        return other

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batch_sizes)

    @property
    def batch_sizes(self) -> list[int]:
        """Images in every batch of an epoch, over all processes."""
        order = torch.arange(len(self.labels))
        return [len(batch) for batch in split_batches(order, self.batch_size, self.drop_last)]

    @property
    def facts(self) -> dict:
        """Everything that determines the batches of ``in_order``."""
        images = self.images
        return {
            "images": images.name,
            "left_out": repr(images.left_out),
            "mean_std": repr((images.pixels.mean, images.pixels.std)),
            "batch": self.batch_size,
        }

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.in_order()

    def in_order(self, part: Part = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """Each image of this part once."""
        rank, count = part
        mine = torch.arange(len(self.labels))[rank::count]
        batches = mine.split(self.batch_size) if len(mine) else []
        plain = not self.images.train or self.images.pixels.kept == "input"
        for batch, where in self._gathered(batches, None if plain else self._view):
            yield normalise(batch, self.mean, self.std), self.device_labels[where]

    def epoch(self, number: int, first: int = 0, part: Part = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of epoch ``number``, from batch ``first`` on; never empty, see ``part_of``."""
        order, draws, seeds = batch_order(len(self.labels), self.seed, number)
        whole = split_batches(order, self.batch_size, self.drop_last)[first:]
        batches = whole if self.mixing else [part_of(batch, part) for batch in whole]  # mixing needs whole batches
        each = None
        if self.images.pixels.augment != "none" or self.augment.steps:
            each = lambda image, i: self.augment(image, draws[i], int(seeds[i]))  # noqa: E731 - uses this epoch's draws
        for indices, (batch, where) in zip(batches, self._gathered(batches, each), strict=True):
            images, labels = normalise(batch, self.mean, self.std), self.device_labels[where]
            with own_randomness() if self.augment.erase or self.mixing else nullcontext():
                images = self.augment.erased(images, seeds[indices].tolist())
                if self.mixing:
                    seed_all(int(seeds[indices[0]]) + 2)
                    images, labels = (part_of(mixed, part) for mixed in self.mixing(images, labels))
            yield images, labels

    def _view(self, image: Tensor, i: int) -> Tensor:
        return self.images.pixels.view(image)

    def _gathered(self, batches: Sequence[Tensor], each) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch, (B, 3, H, W) in 0..255 or patches of such images, with its indices, on the device.

        If given, ``each(image, i)`` is applied to every image first.
        """
        if not batches:
            return
        # All indices at once: one copy per batch would make the host wait for a GPU in every step.
        where = torch.cat(list(batches)).to(self.device).split([len(indices) for indices in batches])
        if each is None and self.images.resident is not None:
            for indices in where:
                yield self.images.resident[indices], indices
        else:
            yield from zip(on_device(self._on_host(batches, each), self.device), where, strict=True)

    def _on_host(self, batches: Sequence[Tensor], each) -> Iterator[Tensor]:
        if each is None and self.images.stackable:
            yield from self.images.stacked(batches)
            return
        for indices, images in zip(batches, self.images.batches(batches), strict=True):
            if self.augment.steps and each is not None:  # do expensive augmentation on the model's device
                images = [sent(image, self.device) for image in images]
            if each is not None:
                with own_randomness() if self.augment.steps else nullcontext():
                    images = [each(image, i) for image, i in zip(images, indices.tolist(), strict=True)]
            yield self.images.pixels.batch(images)


def on_device(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield every batch on the device. On a GPU, each is copied while the previous one is in use."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copies, waiting = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(copies):
            moved = sent(batch, device)
        arriving, waiting = waiting, (moved, copies.record_event())
        if arriving:
            yield _arrived(*arriving)
    if waiting:
        yield _arrived(*waiting)


def sent(images: Tensor, device: torch.device) -> Tensor:
    """On the device; a copy to a GPU is only queued, from pinned memory, so that the host does not wait for it."""
    if device.type != "cuda" or images.is_cuda:
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)


def _arrived(batch: Tensor, event: "torch.cuda.Event") -> Tensor:
    """The batch, ready for work queued from now on; its memory is not reused before that work is done."""
    stream = torch.cuda.current_stream(batch.device)
    stream.wait_event(event)
    batch.record_stream(stream)
    return batch


def batch_order(count: int, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """A permutation of ``count`` images; per image, three numbers in [0, 1) and a seed for its augmentation."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order, draws = torch.randperm(count, generator=generator), torch.rand(count, 3, generator=generator)
    return order, draws, torch.randint(2**31, (count,), generator=generator)


def split_batches(order: Tensor, batch_size: int, drop_last: bool = False) -> list[Tensor]:
    """Batches of ``batch_size``; the last may be smaller. A last batch of one image joins the one before, since a batch
    norm in the head could not train on it. With ``drop_last``, only full batches are kept."""
    batches = list(order.split(batch_size))
    if drop_last:
        return [batch for batch in batches if len(batch) == batch_size]
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def part_of(batch: Tensor, part: Part) -> Tensor:
    """Every count-th entry, from entry ``rank`` on. If there is none, the first: a process without images must still
    take part in the step, and its share of the batch is zero."""
    rank, count = part
    return batch[rank::count] if rank < len(batch) else batch[:1]
