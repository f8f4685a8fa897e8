"""Linear heads on features that are computed once: the cheap half of the ladder, chosen and judged by resampling.

A choice is a network and penalties of a logistic regression. Penalties that held-out images cannot tell apart are all
taken, and their heads averaged, which is one linear head again: with few images that is an ensemble over the
hyper-parameter, with many it is the best one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from .folds import folds, share

# Of mean cross-entropy + penalty / 2 |W|^2 on features scaled to a standard deviation of 1, strong to weak: each fit
# starts from the one before.
PENALTIES = tuple(10.0**power for power in range(0, -7, -1))
STEPS = 300  # maximum L-BFGS steps of a fit
JUDGED, FITTED = 3e-4, 1e-4  # largest slope where a fit ends: of heads that are compared, and of others
WORSE = 2  # so many weaker penalties in a row that are worse on held-out images end the search
MANY = 2000  # images; with more, fewer folds are as good, and faster
OUTER, OUTER_OF_MANY = 10, 5
INNER = 4  # folds that choose; of many images, one part of that size judges
AT_ONCE = 2**19  # weights that are fitted together


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
    return _choices(views, labels, groups, classes, [np.ones(len(labels), bool)], seed)[0]


def nested(
    views: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[Choice]]:
    """Out-of-fold logits (N, classes), every image's fold (N,), and the choice of every fold.

    The whole choice is made again without the images of a fold before that fold is predicted: no image is near the
    choice that predicts it.
    """
    parts = folds(labels, groups, OUTER if len(labels) <= MANY else OUTER_OF_MANY, seed)
    numbers = np.unique(parts)
    choices = _choices(views, labels, groups, classes, [parts != part for part in numbers], seed + 1)
    logits = np.zeros((len(labels), classes))
    for part, choice in zip(numbers, choices, strict=True):
        held, x = parts == part, views[choice.view]
        logits[held] = average(x[~held], labels[~held], classes, choice.penalties, x[held])
    return logits, parts, choices


def average(
    x: np.ndarray, labels: np.ndarray, classes: int, penalties: Sequence[float], others: np.ndarray
) -> np.ndarray:
    """Logits (M, classes) of ``others`` by the average of the heads that are fitted to ``x`` with ``penalties``."""
    x, others = scaled(x, x, others)
    everyone = np.ones((1, len(x)), bool)
    weight = np.zeros((1, classes, x.shape[1] + 1))
    weights = []
    for penalty in sorted(penalties, reverse=True):
        weight = solve(x, labels, penalty, weight, everyone, FITTED)
        weights.append(weight[0])
    mean = np.mean(weights, 0)
    return others @ mean[:, :-1].T + mean[:, -1]


# ---- choosing, for several sets of images at once


def _choices(
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    classes: int,
    sets: Sequence[np.ndarray],
    seed: int,
) -> list[Choice]:
    """The choice that each of ``sets`` (masks over all images) makes by itself."""
    judges = [_judges(labels, groups, among, seed) for among in sets]
    held = np.concatenate(judges)
    trains = np.concatenate([among & ~own for among, own in zip(sets, judges, strict=True)])
    judged = [_judged(x, labels, classes, trains, held) for x in views]
    ends = np.cumsum([len(own) for own in judges])
    return [
        _choice([view[end - len(own) : end] for view in judged], own) for own, end in zip(judges, ends, strict=True)
    ]


def _judges(labels: np.ndarray, groups: np.ndarray, among: np.ndarray, seed: int) -> np.ndarray:
    """Masks (K, N) of images of ``among`` that judge what the others of it fit."""
    some = np.flatnonzero(among)
    if len(some) > MANY:
        own = share(labels[some], groups[some], 1 / INNER, seed)[None]
    else:
        parts = folds(labels[some], groups[some], INNER, seed)
        own = parts == np.unique(parts)[:, None]
    masks = np.zeros((len(own), len(labels)), bool)
    masks[:, some] = own
    return masks


def _judged(x: np.ndarray, labels: np.ndarray, classes: int, trains: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(K, N, penalties, 2): cross-entropy of every image, and whether it is right, by heads of ``trains`` (K, N).

    Penalties that were not tried, since stronger ones were better on ``held``, have an infinite cross-entropy.
    """
    (x,) = scaled(x, x)
    if x.shape[1] > len(x):  # the same heads, in the coordinates of the images' span
        left, sizes, _ = np.linalg.svd(x, full_matrices=False)
        x = left * sizes
    rows = np.arange(len(x))
    found = np.full((len(trains), len(x), len(PENALTIES), 2), np.inf)
    together = max(1, AT_ONCE // (classes * x.shape[1]))
    for first in range(0, len(trains), together):
        masks, judges = trains[first : first + together], held[first : first + together]
        weight = np.zeros((len(masks), classes, x.shape[1] + 1))
        means: list[np.ndarray] = []
        for i, penalty in enumerate(PENALTIES):
            weight = solve(x, labels, penalty, weight, masks, JUDGED)
            for k in range(len(masks)):
                logits = x @ weight[k, :, :-1].T + weight[k, :, -1]
                top = logits.max(1)
                loss = np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[rows, labels]
                found[first + k, :, i, 0] = loss
                found[first + k, :, i, 1] = logits.argmax(1) == labels
            losses = found[first : first + len(masks), :, i, 0]
            means.append((losses * judges).sum(1) / judges.sum(1))
            if i >= WORSE and (np.argmin(means, 0) <= i - WORSE).all():
                break
    return found


def _choice(judged: Sequence[np.ndarray], held: np.ndarray) -> Choice:
    """The choice of one set: ``judged`` (K, N, penalties, 2) of each network, by the images ``held`` (K, N)."""
    means = [view[held][:, :, 0].mean(0) for view in judged]
    view = min(range(len(judged)), key=lambda i: means[i].min())
    losses, best = judged[view][held][:, :, 0], means[view].argmin()
    tried = np.flatnonzero(np.isfinite(means[view]))
    worse = losses[:, tried] - losses[:, [best]]  # (held-out images, penalties)
    alike = tried[worse.mean(0) <= worse.std(0) / np.sqrt(len(worse))]
    right = [float(own[held][:, mean.argmin(), 1].mean()) for own, mean in zip(judged, means, strict=True)]
    return Choice(view, tuple(PENALTIES[i] for i in alike), tuple(float(mean.min()) for mean in means), tuple(right))


# ---- fitting


def scaled(of: np.ndarray, *features: np.ndarray) -> list[np.ndarray]:
    """Features minus the mean of ``of``, divided by its standard deviation over all channels, as logistic.py's."""
    mean, scale = of.mean(0), max(float(of.std(ddof=1)), 1e-12)
    return [(x - mean) / scale for x in features]


def solve(
    x: np.ndarray, labels: np.ndarray, penalty: float, start: np.ndarray, trains: np.ndarray, tolerance: float
) -> np.ndarray:
    """The same minima as ``engine.probe.fit``, weights (K, classes, D + 1), for K subsets of the images at once.

    These are many small fits, for each of which torch takes five to ten times as long.

    Args:
        x: (N, D) float32.
        trains: (K, N) bool, the images of each fit.
        tolerance: the largest slope where they end.
    """
    rows, shape = np.arange(len(labels)), start.shape
    share_of = (trains / trains.sum(1, keepdims=True)).T.astype(x.dtype)  # (N, K)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat.reshape(shape)
        own = weight.astype(x.dtype)
        logits = (x @ own[:, :, :-1].reshape(-1, x.shape[1]).T).reshape(len(x), *shape[:2]) + own[:, :, -1]
        logits -= logits.max(2, keepdims=True)
        slope = np.exp(logits)
        total = slope.sum(2)
        value = (share_of * (np.log(total) - logits[rows, :, labels])).sum(dtype=float)
        value += penalty / 2 * np.square(weight[:, :, :-1]).sum()
        slope /= total[:, :, None]
        slope[rows, :, labels] -= 1
        slope *= share_of[:, :, None]
        gradient = np.empty(shape)
        gradient[:, :, :-1] = (slope.reshape(len(x), -1).T @ x).reshape(*shape[:2], -1)
        gradient[:, :, :-1] += penalty * weight[:, :, :-1]
        gradient[:, :, -1] = slope.sum(0)
        return value, gradient.ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "gtol": tolerance})
    return found.x.reshape(shape)
