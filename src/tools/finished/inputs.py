"""Selected images as a run's model sees them: files, or some of the run's own test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...data.image_files import find_images, read_images
from ...data.pixels import normalise
from ...data.sources.base import DataError
from ...models.patches import image_of
from .run import FinishedRun
from .sets import own_set


@dataclass(frozen=True)
class Chosen:
    """Names and images (B, 3, H, W), or their patches, float32 and normalised, on the CPU."""

    names: list[str]
    images: Tensor


def chosen_images(run: FinishedRun, names: Sequence[str], count: int) -> Chosen:
    """The images that ``names`` refer to (files, folders, patterns), or ``count`` of the run's own test images.

    Raises:
        DataError: files are missing or broken, or the run's test images were not found.
    """
    if names:
        files = list(read_images(find_images(names), run.tuned.pixels, run.cfg.DATA.NUM_WORKERS))
        if broken := [f"{name}: {image}" for name, image in files if isinstance(image, str)]:
            raise DataError("these files are broken:\n" + "\n".join(broken))
        keys, images = [name for name, _ in files], [image for _, image in files]
    else:
        loader = own_set(run, "test").loader
        some = spread(loader.images.split.labels, count)
        keys, images = [loader.images.split.keys[i] for i in some], next(loader.images.batches([torch.tensor(some)]))
    return Chosen(keys, normalise(run.tuned.pixels.batch(images), *mean_and_std(run)))


def short(name: str) -> str:
    """An image's file and the folder it is in."""
    return "/".join(Path(name).parts[-2:])


def mean_and_std(run: FinishedRun) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each."""
    return tuple(torch.tensor(v).view(3, 1, 1) for v in (run.tuned.pixels.mean, run.tuned.pixels.std))


def as_seen(run: FinishedRun, image: Tensor) -> np.ndarray:
    """A normalised image (3, H, W), or its patches, as a picture: (H, W, 3) in [0, 1]."""
    mean, std = mean_and_std(run)
    if run.tuned.pixels.native:
        image = image_of(image, run.tuned.pixels.patch)
    return (image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()


def spread(labels: np.ndarray, count: int) -> list[int]:
    """Indices of ``count`` images, class after class: the first of each, then the second of each, ..."""
    seen: dict[int, int] = {}
    turn = []
    for i, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, -1) + 1
        turn.append((seen[label], label, i))
    return [i for _, _, i in sorted(turn)[:count]]
