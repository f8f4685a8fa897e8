"""The demo's data: 1,797 real handwritten digits, 8x8 pixels, included in scikit-learn (UCI, Alpaydin 1998).

Split as in VTAB-1k: train800, val200, both together, and the other 797 as test; stratified over the ten classes, drawn
once with seed 0.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import Layout, Source, Split, Wanted, stratified

NUM_TRAIN, NUM_VAL = 800, 200


@dataclass(frozen=True)
class Digits(Layout):
    """The digits as uint8 grey images (8, 8); they need no folder."""

    kind: ClassVar[str] = "digits"

    def find(self, root: Path) -> Path:
        return root

    def open(self, folder: Path, wanted: Wanted) -> Source:
        from sklearn.datasets import load_digits  # imported here: it takes as long as a short run

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
        names = [f"digits/{i}" for i in range(len(images))]
        everything = Split(lambda i: images[i], digits.target.astype(int), names, lambda i: "load_digits")
        trainval = stratified(everything.labels, NUM_TRAIN + NUM_VAL, seed=0)
        train = trainval[stratified(everything.labels[trainval], NUM_TRAIN, seed=0)]
        splits = {
            "train": train,
            "val": np.setdiff1d(trainval, train),
            "test": np.setdiff1d(np.arange(len(images)), trainval),
        }
        return Source(
            class_names=[str(c) for c in range(10)],
            splits={name: everything.take(chosen) for name, chosen in splits.items()},
            version="scikit-learn load_digits, split seed 0",
        )

    def expects(self) -> str:
        return "nothing: it is included in scikit-learn"
