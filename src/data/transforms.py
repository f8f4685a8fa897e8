"""From an image file to what a ViT sees: decode and resize on the CPU in uint8, augment and normalise in batches."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .sources.base import RawImage


def decode(raw: RawImage) -> Tensor:
    """RGB pixels of an image file, or of an array: uint8 (3, H, W).

    Grey, palette, CMYK, RGBA and 16-bit files become RGB; transparency is dropped and EXIF rotation is not applied, as
    in the original code.

    Raises:
        OSError, ValueError, SyntaxError: whatever Pillow says of a file it cannot read to its end.
    """
    if isinstance(raw, np.ndarray):
        pixels = np.repeat(raw[..., None], 3, axis=-1) if raw.ndim == 2 else raw
    else:
        pixels = _rgb(Image.open(io.BytesIO(raw)))
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more, which Pillow would clip, not scale
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode != "F" else max(values.max(), 1.0)
        grey = np.clip(np.round(values * (255 / top)), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # as Pillow wants it; the colours are the same
    return np.asarray(image.convert("RGB"))


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """To exactly ``size`` by bilinear interpolation without antialiasing, as VPT's TensorFlow pipeline: uint8 again."""
    if pixels.shape[-2:] == size:
        return pixels
    return _bilinear(pixels, size, antialias=False)


def resize_shorter(pixels: Tensor, side: int, at_least: tuple[int, int]) -> Tensor:
    """The shorter side to ``side`` pixels, or more where both must be ``at_least``; in proportion, antialiased."""
    height, width = pixels.shape[-2:]
    scale = max(side / min(height, width), at_least[0] / height, at_least[1] / width)
    size = (max(round(height * scale), at_least[0]), max(round(width * scale), at_least[1]))  # max: after rounding
    return _bilinear(pixels, size, antialias=True)


def _bilinear(pixels: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    resized = F.interpolate(pixels[None].float(), size, mode="bilinear", align_corners=False, antialias=antialias)
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)


def center_crop(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of (3, H, W)."""
    top, left = (round((have - want) / 2) for have, want in zip(pixels.shape[-2:], size, strict=True))
    return pixels[:, top : top + size[0], left : left + size[1]]


def random_crop_flip(pixels: Tensor, size: tuple[int, int], draw: Tensor) -> Tensor:
    """A crop of (3, H, W) at a place and mirrored or not as the three numbers in ``draw``, each in [0, 1), say."""
    room = (pixels.shape[-2] - size[0] + 1, pixels.shape[-1] - size[1] + 1)
    top, left = int(draw[0] * room[0]), int(draw[1] * room[1])
    crop = pixels[:, top : top + size[0], left : left + size[1]]
    return crop.flip(-1) if draw[2] < 0.5 else crop


def normalise(batch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32, (x / 255 - mean) / std per channel; mean and std: (3, 1, 1)."""
    return batch.float().mul_(1 / 255).sub_(mean).div_(std)
