"""Resizing with the kernels of the libraries that the original code used, bit for bit or nearly.

Output pixel i of n samples an axis of N pixels around position

    (i + 0.5) * N / n - 0.5    "bilinear", "bicubic": as in Pillow, torch and TensorFlow 2
    i * N / n                  "bilinear_tf1": TensorFlow 1's resize (half_pixel_centers=False), also used by code with
                               ``import tensorflow.compat.v1 as tf``
"""

from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .presets import TF1
from .sources.base import DataError


def resize(
    pixels: np.ndarray, size: tuple[int, int], interpolation: str, antialias: bool, dtype: str = "uint8"
) -> Tensor:
    """uint8 (H, W, 3) -> (3, *size) in 0..255.

    With antialiasing as Pillow, bit for bit. Without, as TensorFlow: "bilinear_tf1" as ``tf.compat.v1.image.resize``,
    within 0.0001 of 255 in float32; uint8 is rounded, an error of at most 0.5, 0.25 on average. "bilinear" as
    TensorFlow 2, within 0.0004 in float32, and at most 0.8, 0.25 on average, in uint8.
    """
    if pixels.shape[:2] == tuple(size):
        same = planes(pixels)
        return same.float() if dtype == "float32" else same
    if interpolation == TF1:
        return planes(_tf1(pixels if dtype == "uint8" else pixels.astype(np.float32), size))
    if antialias and dtype == "uint8":
        method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
        return planes(np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), method)))
    if dtype == "uint8" and interpolation == "bilinear":
        return planes(_cv2().resize(pixels, (size[1], size[0]), interpolation=_cv2().INTER_LINEAR))
    image = torch.from_numpy(_writable(pixels)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(image, size, mode=interpolation, align_corners=False, antialias=antialias)[0]
    resized = resized.clamp(0, 255).contiguous()
    return resized.round_().byte() if dtype == "uint8" else resized


def _tf1(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3), uint8 or float32 -> (*size, 4) of the same type; the fourth channel is meaningless."""
    cv2 = _cv2()
    if int(cv2.__version__.split(".")[0]) < 5:  # they round positions to 1/32 of a pixel
        raise DataError(
            f"TensorFlow 1's resize needs OpenCV 5, but {cv2.__version__} is installed: "
            "pip install 'opencv-python-headless>=5'"
        )
    scale = np.array([[pixels.shape[1] / size[1], 0, 0], [0, pixels.shape[0] / size[0], 0]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)  # four channels take half the time of three
    return cv2.warpAffine(pixels, scale, (size[1], size[0]), flags=how, borderMode=cv2.BORDER_REPLICATE)


@cache
def _cv2():
    import cv2  # imported here: not every machine resizes images

    cv2.setNumThreads(1)  # parallel over images instead
    return cv2


def planes(pixels: np.ndarray) -> Tensor:
    """(H, W, 3 or more) -> (3, H, W)"""
    split = np.empty((pixels.shape[2], *pixels.shape[:2]), pixels.dtype)
    _cv2().split(pixels, list(split))
    return torch.from_numpy(split[:3])


def _writable(pixels: np.ndarray) -> np.ndarray:
    """The array, or a copy: torch warns about read-only arrays, such as Pillow's."""
    return pixels if pixels.flags.writeable else pixels.copy()
