"""Linear heads on features that are computed once: the cheap half of the ladder, chosen and judged by resampling.

A choice is a backbone and penalties of a logistic regression. Penalties that held-out images cannot tell apart are all
taken, and their heads averaged, which is one linear head again: with few images that is an ensemble over the
hyper-parameter, with many it is the best one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from .folds import folds, share

# Of mean cross-entropy + penalty / 2 |W|^2 on features scaled to a standard deviation of 1, strong to weak.
PENALTIES = tuple(10.0**power for power in range(1, -7, -1))
STEPS = 300  # maximum L-BFGS steps of a fit
TOLERANCE = 1e-4  # largest slope where a fit ends
WORSE = 2  # a path ends after this many weaker penalties in a row that were worse on held-out images
MANY = 2000  # images; with more, fewer folds are as good, and faster
OUTER, OUTER_OF_MANY = 10, 5
INNER = 4  # folds that choose; of many images, one part of that size judges


@dataclass(frozen=True)
class Choice:
    """What resampling chose among features of several networks.

    Attributes:
        view: the index of the features.
        penalties: whose heads are averaged.
        losses: the smallest held-out cross-entropy of each kind of features.
        accuracies: the held-out accuracy of the penalty with that loss.
    """

    view: int
    penalties: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def choose(views: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, classes: int, seed: int) -> Choice:
    """The features and penalties with the smallest cross-entropy on images that were held out.

    Args:
        views: features (N, D) of the same images by several networks.
        groups: (N,) images of one group are never on both sides.
    """
    judged = [_held_out(x, labels, groups, classes, seed) for x in views]
    means = [losses.mean(0) for losses, _ in judged]
    view = min(range(len(views)), key=lambda i: means[i].min())
    losses = judged[view][0]
    tried = np.flatnonzero(np.isfinite(means[view]))
    worse = losses[:, tried] - losses[:, [means[view].argmin()]]  # (held-out images, penalties)
    alike = tried[worse.mean(0) <= worse.std(0) / np.sqrt(len(worse))]
    penalties = tuple(PENALTIES[i] for i in alike)
    accuracies = tuple(float(right[:, mean.argmin()].mean()) for (_, right), mean in zip(judged, means, strict=True))
    return Choice(view, penalties, tuple(float(mean.min()) for mean in means), accuracies)


def _held_out(
    x: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of held-out images, and whether they are right, for every penalty: (M, penalties) each."""
    if len(labels) > MANY:
        masks = [share(labels, groups, 1 / INNER, seed)]
    else:
        parts = folds(labels, groups, INNER, seed)
        masks = [parts == i for i in np.unique(parts)]
    losses, right = [], []
    for held in masks:
        own = labels[held]
        part = np.full((len(own), len(PENALTIES)), np.inf)
        hits = np.zeros((len(own), len(PENALTIES)), bool)
        for i, logits in enumerate(_path(x[~held], labels[~held], classes, x[held])):
            part[:, i] = -log_softmax(logits, 1)[np.arange(len(own)), own]
            hits[:, i] = logits.argmax(1) == own
            if i >= WORSE and part[:, i - WORSE : i + 1].mean(0).argmin() == 0:
                break
        losses.append(part)
        right.append(hits)
    return np.concatenate(losses), np.concatenate(right)


def _path(x: np.ndarray, labels: np.ndarray, classes: int, others: np.ndarray) -> Iterator[np.ndarray]:
    """Logits of ``others`` with every penalty; each fit starts from the one before."""
    x, others = scaled(x, x, others)
    weight = np.zeros((classes, x.shape[1] + 1))
    for penalty in PENALTIES:
        weight = solve(x, labels, penalty, weight)
        yield others @ weight[:, :-1].T + weight[:, -1]


def average(x: np.ndarray, labels: np.ndarray, classes: int, penalties: Sequence[float], others: np.ndarray):
    """Logits (M, classes) of ``others`` by the average of the heads that are fitted to ``x`` with ``penalties``."""
    x, others = scaled(x, x, others)
    weight = np.zeros((classes, x.shape[1] + 1))
    total = 0.0
    for penalty in penalties:
        weight = solve(x, labels, penalty, weight)
        total = total + weight
    mean = total / len(penalties)
    return others @ mean[:, :-1].T + mean[:, -1]


def nested(
    views: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[Choice]]:
    """Out-of-fold logits (N, classes), every image's fold (N,), and the choice of every fold.

    The whole choice is made again without the images of a fold before that fold is predicted: no image is near the
    choice that predicts it.
    """
    parts = folds(labels, groups, OUTER if len(labels) <= MANY else OUTER_OF_MANY, seed)
    logits = np.zeros((len(labels), classes))
    choices = []
    for part in np.unique(parts):
        held = parts == part
        choice = choose([x[~held] for x in views], labels[~held], groups[~held], classes, seed + 1)
        x = views[choice.view]
        logits[held] = average(x[~held], labels[~held], classes, choice.penalties, x[held])
        choices.append(choice)
    return logits, parts, choices


def scaled(of: np.ndarray, *features: np.ndarray) -> list[np.ndarray]:
    """Features minus the mean of ``of``, divided by its standard deviation over all channels, as logistic.py's."""
    mean, scale = of.mean(0), max(float(of.std(ddof=1)), 1e-12)
    return [(x - mean) / scale for x in features]


def solve(x: np.ndarray, labels: np.ndarray, penalty: float, start: np.ndarray) -> np.ndarray:
    """The same minimum as ``engine.probe.fit``, weights (classes, D + 1): many small fits, where torch is slow."""
    rows, shape = np.arange(len(labels)), start.shape

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat.reshape(shape)
        logits = x @ weight[:, :-1].T.astype(x.dtype) + weight[:, -1].astype(x.dtype)
        logits -= logits.max(1, keepdims=True)
        slope = np.exp(logits)
        total = slope.sum(1, keepdims=True)
        value = (np.log(total[:, 0]) - logits[rows, labels]).mean(dtype=float)
        value += penalty / 2 * np.square(weight[:, :-1]).sum()
        slope /= total
        slope[rows, labels] -= 1
        slope /= len(labels)
        gradient = np.concatenate((slope.T @ x + penalty * weight[:, :-1], slope.sum(0)[:, None]), 1)
        return value, gradient.ravel().astype(float)

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "gtol": TOLERANCE})
    return found.x.reshape(shape)
