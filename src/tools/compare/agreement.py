"""How alike models answer the same images, and how sure they are: agreement, errors in common, calibration.

The questions of the unifying study (Mai et al., 2025, arXiv:2409.16434): do methods of the same accuracy make different
mistakes? All functions take the images in the same order.
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
        labels: (N,) the right classes.
    """

    name: str
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """(N,) the most probable."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """(N,) their probabilities."""
        return self.probabilities.max(1)

    @property
    def right(self) -> np.ndarray:
        """(N,) booleans."""
        return self.classes == self.labels

    def most_confident(self, share: float) -> np.ndarray:
        """(N,) booleans: the ``share`` of images with the highest confidence, of equals the first."""
        chosen = np.zeros(len(self.labels), bool)
        chosen[np.argsort(-self.confidence, kind="stable")[: max(1, round(share * len(self.labels)))]] = True
        return chosen


def pairwise(models: Sequence[Answers], measure: Callable[[Answers, Answers], float | None]) -> list[list]:
    """The matrix of ``measure``."""
    return [[measure(one, other) for other in models] for one in models]


def agreement(one: Answers, other: Answers) -> float:
    """Share of images with the same answer."""
    return float(np.mean(one.classes == other.classes))


def expected_agreement(one: Answers, other: Answers) -> float:
    """Agreement of two models that answer independently, each its classes as often as it does (Cohen, 1960)."""
    count = one.probabilities.shape[1]
    return float((_shares(one.classes, count) * _shares(other.classes, count)).sum())


def expected_agreement_given_class(one: Answers, other: Answers) -> float:
    """The same, but independent among the images of each true class: what two models of these very confusion matrices
    would agree on if their mistakes had nothing in common."""
    total, count = 0.0, one.probabilities.shape[1]
    for label in np.unique(one.labels):
        mine = one.labels == label
        total += mine.sum() * (_shares(one.classes[mine], count) * _shares(other.classes[mine], count)).sum()
    return float(total / len(one.labels))


def _shares(classes: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(classes, minlength=count) / len(classes)


def error_overlap(one: Answers, other: Answers) -> float | None:
    """Images that both get wrong among those that either does; None if there are none."""
    return _overlap(~one.right, ~other.right)


def same_errors(one: Answers, other: Answers) -> float | None:
    """Share of the images that both get wrong for which they give the same wrong answer; None if there are none."""
    both = ~one.right & ~other.right
    return float(np.mean(one.classes[both] == other.classes[both])) if both.any() else None


def confident_overlap(share: float) -> Callable[[Answers, Answers], float | None]:
    """Images among the most confident of both, among those of either."""
    return lambda one, other: _overlap(one.most_confident(share), other.most_confident(share))


def confident_agreement(share: float) -> Callable[[Answers, Answers], float]:
    """Agreement on the images that ``one`` (the row) is most confident of."""

    def measure(one: Answers, other: Answers) -> float:
        mine = one.most_confident(share)
        return float(np.mean(one.classes[mine] == other.classes[mine]))

    return measure


def _overlap(one: np.ndarray, other: np.ndarray) -> float | None:
    either = (one | other).sum()
    return float((one & other).sum() / either) if either else None


def p_value(one: Answers, other: Answers) -> float:
    """Of McNemar's exact test: how probable so unequal a number of images that only one gets right would be if both
    were equally good (McNemar, 1947)."""
    only_one, only_other = int((one.right & ~other.right).sum()), int((~one.right & other.right).sum())
    if only_one + only_other == 0:
        return 1.0
    return float(binomtest(only_one, only_one + only_other).pvalue)


def oracle(models: Sequence[Answers]) -> float:
    """Share of images that at least one model gets right."""
    return float(np.any([model.right for model in models], axis=0).mean())


def per_class(model: Answers) -> list[float | None]:
    """Accuracy on each class's images; None for a class without any."""
    counts = np.bincount(model.labels, minlength=model.probabilities.shape[1])
    right = np.bincount(model.labels[model.right], minlength=len(counts))
    return [float(r / n) if n else None for r, n in zip(right, counts, strict=True)]


@dataclass(frozen=True)
class Bin:
    """Images whose confidence is in (low, high]: how many, their mean confidence and accuracy (None if none)."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability(model: Answers, bins: int = 15) -> list[Bin]:
    """Accuracy by confidence in bins of equal width."""
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.ceil(model.confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        mine = which == i
        means = (float(model.confidence[mine].mean()), float(model.right[mine].mean())) if mine.any() else (None, None)
        found.append(Bin(float(edges[i]), float(edges[i + 1]), int(mine.sum()), *means))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy, bins weighted by their images (Guo et
    al., 2017, arXiv:1706.04599)."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins if one.count) / total
