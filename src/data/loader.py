"""Batches on the device: uint8 from the cache, or decoded ahead by threads; normalised where they are used."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from ..utils.threads import in_order, threads
from .augment import Augment, mixing, own_randomness, seed_all
from .cache import Known
from .pixels import Pixels, normalise
from .sources.base import DataError

AHEAD = 2  # batches that threads decode while one is used


class Images:
    """The images of one split in any order, from memory, a memory map, or their files.

    Args:
        train: kept as training wants them, see ``Pixels.kept``.
        place: of kept images: "disk" (a memory map), "memory" or "device".
    """

    def __init__(
        self,
        known: Known,
        pixels: Pixels,
        train: bool,
        workers: int,
        place: str = "disk",
        device: torch.device | None = None,
    ):
        self.split, self.pixels, self.train, self.workers = known.split, pixels, train, workers
        self.name, self.left_out = known.name, known.left_out
        self.store = known.store.in_memory() if known.store and place == "memory" else known.store
        self.resident = None
        if self.store and place == "device" and self.store.shapes is None:
            self.resident = torch.from_numpy(np.asarray(self.store.array)).to(device)

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, batches: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """For every tensor of indices its images, (3, H, W) each, on the CPU."""
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
        """Whether images are kept, and all of one size."""
        return self.store is not None and self.store.shapes is None

    def stacked(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """For every tensor of indices its images (B, 3, H, W) in one piece, which the next one overwrites."""
        array = self.store.array
        space = np.empty((max((len(b) for b in batches), default=0), *array.shape[1:]), array.dtype)
        for indices in batches:
            yield torch.from_numpy(np.take(array, indices.numpy(), axis=0, out=space[: len(indices)], mode="clip"))

    def _decode(self, i: int) -> Tensor:
        try:
            return self.pixels.prepare(self.split.read(i), self.train)
        except Exception as error:  # it could be decoded before: a file that was changed, or a disk that went away
            raise DataError(f"{self.split.keys[i]} can no longer be read: {type(error).__name__}: {error}") from error


class Loader:
    """Batches of one split: float32 images (B, 3, H, W) and int64 labels (B,), on the device.

    ``epoch(e)`` of a training loader shuffles and augments, the same for the same seed and e whatever came before and
    however many threads decode; with mixup or cutmix labels are (B, C). Iterating goes through the images in their
    order, without augmentation.
    """

    def __init__(self, images: Images, batch_size: int, device: torch.device, seed: int = 0, num_classes: int = 0):
        self.images, self.batch_size, self.device, self.seed = images, batch_size, device, seed
        self.labels = torch.from_numpy(images.split.labels)
        pixels = images.pixels
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (pixels.mean, pixels.std))
        self.augment, self.mixing = Augment(pixels), mixing(pixels, num_classes)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(split_batches(torch.arange(len(self.labels)), self.batch_size))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = torch.arange(len(self.labels)).split(self.batch_size)
        plain = not self.images.train or self.images.pixels.kept == "input"
        for indices, batch in zip(batches, self._gathered(batches, None if plain else self._view), strict=True):
            yield normalise(batch, self.mean, self.std), self.labels[indices].to(self.device)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of epoch ``number``."""
        order, draws, seeds = batch_order(len(self.labels), self.seed, number)
        batches = split_batches(order, self.batch_size)
        each = None
        if self.images.pixels.augment != "none" or self.augment.steps:
            each = lambda image, i: self.augment(image, draws[i], int(seeds[i]))  # noqa: E731 - it needs this epoch
        for indices, batch in zip(batches, self._gathered(batches, each), strict=True):
            images, labels = normalise(batch, self.mean, self.std), self.labels[indices].to(self.device)
            with own_randomness() if self.augment.erase or self.mixing else nullcontext():
                images = self.augment.erased(images, seeds[indices].tolist())
                if self.mixing:
                    seed_all(int(seeds[indices[0]]) + 2)
                    images, labels = self.mixing(images, labels)
            yield images, labels

    def _view(self, image: Tensor, i: int) -> Tensor:
        return self.images.pixels.view(image)

    def _gathered(self, batches: Sequence[Tensor], each) -> Iterator[Tensor]:
        """Every batch (B, 3, H, W) on the device, in 0..255; ``each(image, i)`` is applied to its images first."""
        if each is None and self.images.resident is not None:
            for indices in batches:
                yield self.images.resident[indices.to(self.device)]
        elif each is None and self.images.stackable:
            for batch in self.images.stacked(batches):
                yield batch.to(self.device)
        else:
            on_device = bool(self.augment.steps) and each is not None
            for indices, images in zip(batches, self.images.batches(batches), strict=True):
                if on_device:  # what takes time is done where the model is
                    images = [image.to(self.device) for image in images]
                if each is not None:
                    with own_randomness() if self.augment.steps else nullcontext():
                        images = [each(image, i) for image, i in zip(images, indices.tolist(), strict=True)]
                yield torch.stack(images).to(self.device)


def batch_order(count: int, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """A permutation of ``count`` images; three numbers in [0, 1) and a seed for each image's augmentation."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order, draws = torch.randperm(count, generator=generator), torch.rand(count, 3, generator=generator)
    return order, draws, torch.randint(2**31, (count,), generator=generator)


def split_batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """Batches of ``batch_size``, the last as small as it comes; but one image alone, on which a batch norm in the head
    could not train, joins the batch before."""
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
