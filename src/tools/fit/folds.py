"""Folds: images into parts with the same share of every class, near-duplicates always in the same part."""

import numpy as np


def folds(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The part (0..count-1) of every image: (N,) integers.

    Whole groups are dealt, large ones first, each to the part that has the fewest images of its classes, then the
    fewest in all. Of equals the order is drawn with ``seed``.

    Args:
        labels: (N,) integers.
        groups: (N,) integers; images of one group look alike.
        count: of parts; one without images is possible where there are fewer groups.
    """
    random = np.random.RandomState(seed)  # its stream is frozen across numpy's releases
    members = _members(groups)
    order = random.permutation(len(members))
    order = sorted(order, key=lambda i: -len(members[i]))
    by_class = np.zeros((count, labels.max(initial=0) + 1), int)
    parts = np.zeros(len(labels), int)
    for i in order:
        own = np.bincount(labels[members[i]], minlength=by_class.shape[1])
        crowded = by_class @ own
        best = min(range(count), key=lambda part: (crowded[part], by_class[part].sum()))
        by_class[best] += own
        parts[members[i]] = best
    return parts


def share(labels: np.ndarray, groups: np.ndarray, wanted: float, seed: int) -> np.ndarray:
    """A mask (N,) of about ``wanted`` (a fraction) of the images, as ``folds`` deals them; a class keeps an image."""
    parts = folds(labels, groups, max(2, round(1 / wanted)), seed)
    chosen = parts == 0
    for label in np.unique(labels):
        of_class = labels == label
        if chosen[of_class].all():
            chosen[of_class] = False
    return chosen


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """The images of each group."""
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    return np.split(order, cuts)
