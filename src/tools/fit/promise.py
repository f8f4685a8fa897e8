"""The promise: the accuracy to expect on images of the same kind, with an interval, from images no choice has seen."""

from dataclasses import asdict, dataclass

import numpy as np

from ..report.stats import wilson

LEVEL = 0.95
# The variance of an out-of-fold accuracy around that of the final model, as a multiple of the binomial one: what random
# subsets of digits and hand signs showed. Cross-validation is noisier than it looks (Bates et al., 2021,
# arXiv:2104.00673); Nadeau and Bengio (2003) would have 2.1 for ten folds.
OF_FOLDS = 1.6


@dataclass(frozen=True)
class Promise:
    """Fractions in [0, 1].

    Attributes:
        images: that were counted; ``effective``: as many independent ones would be worth the same.
        basis: "out-of-fold", "held-out" or "test".
    """

    expected: float
    low: float
    high: float
    images: int
    effective: float
    basis: str
    level: float = LEVEL

    def as_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        return f"{100 * self.expected:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def promise(right: np.ndarray, groups: np.ndarray, basis: str) -> Promise:
    """Wilson's interval (1927) of the share of ``right`` (N,), for as many images as they are worth.

    Images of one group (near-duplicates, one person) are not independent: the variance of the share over groups, where
    it is larger than the binomial one, makes them worth fewer. Out-of-fold answers come from several models, none of
    which is the final one: that makes them worth fewer, too, by the factor OF_FOLDS.
    """
    count, share = len(right), float(np.mean(right))
    effective = count / (_design_effect(right, groups) * (OF_FOLDS if basis == "out-of-fold" else 1))
    return Promise(share, *wilson(share, effective), count, effective, basis)


def _design_effect(right: np.ndarray, groups: np.ndarray) -> float:
    """The variance of the share over groups, as a multiple of the binomial variance; at least 1."""
    _, index = np.unique(groups, return_inverse=True)
    number, share = index.max() + 1, right.mean()
    if number in (1, len(right)) or share in (0, 1):
        return len(right) / number
    sums = np.bincount(index, weights=right - share)
    robust = number / (number - 1) * np.square(sums).sum() / len(right) ** 2
    return max(1.0, float(robust / (share * (1 - share) / len(right))))
