"""Splits of tiny random images, for tests of data sets that are written."""

import io

import numpy as np
from PIL import Image

from src.data.sources.base import Split


def image(i: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 5, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def make_split(count: int, seed: int = 0, classes: int = 5, arrays: bool = False) -> Split:
    """Tiny PNG and JPEG files in turn, or grey arrays, as dSprites has them."""

    def read(i: int):
        if arrays:
            return np.random.default_rng(i + seed).integers(0, 2, (6, 5, 1), np.uint8) * np.uint8(255)
        return image(i + seed, "JPEG" if i % 2 else "PNG")

    return Split(read, np.arange(count) % classes, [f"{seed}/{i}.img" for i in range(count)], str)
