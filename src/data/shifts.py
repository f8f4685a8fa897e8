"""Synthetic shifts: the test images made harder to recognise in one known way, identically in every run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .loader import ALL, Loader, Part


def _noise(images: Tensor, std: float, indices: Tensor) -> Tensor:
    """Gaussian noise that depends on an image's position in its split, not on its batch."""
    draws = [
        torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(int(index))) for index in indices.tolist()
    ]
    return images + std * torch.stack(draws).to(images)


def _blur(images: Tensor, sigma: float, indices: Tensor) -> Tensor:
    return F.gaussian_blur(images, [2 * max(1, round(3 * sigma)) + 1] * 2, [sigma, sigma])


def _rotation(images: Tensor, degrees: float, indices: Tensor) -> Tensor:
    return F.rotate(images, degrees, InterpolationMode.BILINEAR)


def _contrast(images: Tensor, factor: float, indices: Tensor) -> Tensor:
    return F.adjust_contrast(images, factor)


def _brightness(images: Tensor, factor: float, indices: Tensor) -> Tensor:
    return images * factor


def _inversion(images: Tensor, share: float, indices: Tensor) -> Tensor:
    return images.lerp(1 - images, share)


# Name: (function on images (B, 3, H, W) in [0, 1], default amount, lowest amount, meaning of the amount).
SHIFTS: dict[str, tuple[Callable[[Tensor, float, Tensor], Tensor], float, float, str]] = {
    "noise": (_noise, 0.2, 0.0, "standard deviation of Gaussian noise, of pixels in [0, 1]"),
    "blur": (_blur, 1.0, 0.01, "standard deviation of a Gaussian blur, in pixels of the input"),
    "rotation": (_rotation, 30.0, -360.0, "degrees, counter-clockwise; corners become black"),
    "contrast": (_contrast, 0.3, 0.0, "factor of the distance from the image's mean grey"),
    "brightness": (_brightness, 0.5, 0.0, "factor of every pixel"),
    "inversion": (_inversion, 1.0, 0.0, "share of the way to the negative"),
}


@dataclass(frozen=True)
class Shift:
    """One of SHIFTS with its amount."""

    kind: str
    amount: float

    @property
    def name(self) -> str:
        return f"{self.kind} {self.amount:g}"

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same; ``indices`` (B,) are the images' positions in their split."""
        return SHIFTS[self.kind][0](images, self.amount, indices).clamp(0, 1)


def parse_shift(text: str) -> Shift:
    """``"noise=0.3"``, or ``"noise"`` with the default amount.

    Raises:
        ValueError: an unknown shift or an invalid amount.
    """
    kind, given, amount = text.partition("=")
    if kind not in SHIFTS:
        raise ValueError(f"unknown shift {kind!r} in {text!r}; known: {', '.join(SHIFTS)}, such as noise=0.2")
    _, usual, lowest, meaning = SHIFTS[kind]
    try:
        value = float(amount) if given else usual
        if not lowest <= value < float("inf"):
            raise ValueError
    except ValueError:
        raise ValueError(f"shift {text!r}: the amount must be a number from {lowest:g} ({meaning})") from None
    return Shift(kind, value)


class ShiftedLoader:
    """A loader's images in their order, shifted."""

    def __init__(self, loader: Loader, shift: Shift):
        if loader.images.pixels.native:
            raise ValueError(
                f"--shift {shift.kind} changes images of one shape, and this run sees every image in its own aspect "
                "ratio (DATA.RESIZE native): compare it on other sets, by --on"
            )
        self.loader = loader
        self.shift = shift
        self.labels = loader.labels
        self.device = loader.device
        self.batch_size = loader.batch_size

    @property
    def facts(self) -> dict:
        return self.loader.facts | {"shift": self.shift.name}

    def in_order(self, part: Part = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Loader.in_order``."""
        mean, std = self.loader.mean, self.loader.std
        rank, count = part
        at = rank
        for images, labels in self.loader.in_order(part):
            indices = torch.arange(at, at + count * len(images), count)
            at += count * len(images)
            yield (self.shift(images * std + mean, indices) - mean) / std, labels
