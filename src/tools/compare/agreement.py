"""How similarly models answer the same images, and how confident they are: agreement, shared errors, calibration.

These are questions of the unifying study (Mai et al., 2025, arXiv:2409.16434): do methods of equal accuracy make
different mistakes? All functions take the images in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Answers:
    """One model's answers to N images.

    Attributes:
        probabilities: (N, C), in float64.
        labels: (N,) the true classes.
    """

    name: str
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """(N,) the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """(N,) its probability."""
        return self.probabilities.max(1)

    @property
    def right(self) -> np.ndarray:
        """(N,) whether it is correct."""
        return self.classes == self.labels

    def most_confident(self, share: float) -> np.ndarray:
        """(N,) booleans: the ``share`` of images with the highest confidence; ties go to the first."""
        chosen = np.zeros(len(self.labels), bool)
        chosen[np.argsort(-self.confidence, kind="stable")[: max(1, round(share * len(self.labels)))]] = True
        return chosen


def pairwise(models: Sequence[Answers], measure: Callable[[Answers, Answers], float | None]) -> list[list]:
    """The matrix of ``measure`` over all pairs."""
    return [[measure(first, second) for second in models] for first in models]


def agreement(first: Answers, second: Answers) -> float:
    """The share of images with the same answer."""
    return float(np.mean(first.classes == second.classes))


def expected_agreement(first: Answers, second: Answers) -> float:
    """The agreement of two independent models with these frequencies of classes (Cohen, 1960)."""
    count = first.probabilities.shape[1]
    return float((_shares(first.classes, count) * _shares(second.classes, count)).sum())


def expected_agreement_given_class(first: Answers, second: Answers) -> float:
    """The same, with independence among the images of each true class: the agreement of two models with these confusion
    matrices if their mistakes were independent."""
    total, count = 0.0, first.probabilities.shape[1]
    for label in np.unique(first.labels):
        mine = first.labels == label
        total += mine.sum() * (_shares(first.classes[mine], count) * _shares(second.classes[mine], count)).sum()
    return float(total / len(first.labels))


def _shares(classes: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(classes, minlength=count) / len(classes)


def error_overlap(first: Answers, second: Answers) -> float | None:
    """Images that both get wrong, as a share of those that either does; None if there are none."""
    return _overlap(~first.right, ~second.right)


def same_errors(first: Answers, second: Answers) -> float | None:
    """The share of the images that both get wrong on which they agree; None if there are none."""
    both = ~first.right & ~second.right
    return float(np.mean(first.classes[both] == second.classes[both])) if both.any() else None


def confident_overlap(share: float) -> Callable[[Answers, Answers], float | None]:
    """The most confident images of both models, as a share of those of either."""
    return lambda first, second: _overlap(first.most_confident(share), second.most_confident(share))


def confident_agreement(share: float) -> Callable[[Answers, Answers], float]:
    """The agreement on the images of which ``first`` (the row) is most confident."""

    def measure(first: Answers, second: Answers) -> float:
        mine = first.most_confident(share)
        return float(np.mean(first.classes[mine] == second.classes[mine]))

    return measure


def _overlap(first: np.ndarray, second: np.ndarray) -> float | None:
    either = (first | second).sum()
    return float((first & second).sum() / either) if either else None


def p_value(first: Answers, second: Answers) -> float:
    """McNemar's exact test: the probability of such unequal numbers of images that only one model gets right, if both
    were equally good (McNemar, 1947)."""
    only_one, only_other = int((first.right & ~second.right).sum()), int((~first.right & second.right).sum())
    if only_one + only_other == 0:
        return 1.0
    return float(binomtest(only_one, only_one + only_other).pvalue)


def oracle(models: Sequence[Answers]) -> float:
    """The share of images that at least one model gets right."""
    return float(np.any([model.right for model in models], axis=0).mean())


def per_class(model: Answers) -> list[float | None]:
    """Accuracy on each class's images; None for a class without images."""
    counts = np.bincount(model.labels, minlength=model.probabilities.shape[1])
    right = np.bincount(model.labels[model.right], minlength=len(counts))
    return [float(r / n) if n else None for r, n in zip(right, counts, strict=True)]


@dataclass(frozen=True)
class Bin:
    """Images with confidence in (low, high]: number, mean confidence and accuracy (None if there are none)."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability(model: Answers, bins: int = 15) -> list[Bin]:
    """Accuracy by confidence in bins of equal width."""
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.ceil(model.confidence * bins).astype(int) - 1, 0, bins - 1)
    binned = []
    for i in range(bins):
        mine = which == i
        means = (float(model.confidence[mine].mean()), float(model.right[mine].mean())) if mine.any() else (None, None)
        binned.append(Bin(float(edges[i]), float(edges[i + 1]), int(mine.sum()), *means))
    return binned


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy, bins weighted by their images (Guo et
    al., 2017, arXiv:1706.04599)."""
    total = sum(entry.count for entry in bins)
    return sum(entry.count * abs(entry.confidence - entry.accuracy) for entry in bins if entry.count) / total
