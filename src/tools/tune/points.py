"""Points of a search space: a whole grid, or random samples."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .spec import Axis, Choice, Range, Sweep

Point = tuple[dict[str, Any], dict[str, Any]]  # the label on every axis, and the corresponding settings


def points(axes: dict[str, Axis], sweep: Sweep) -> list[Point]:
    """All points of a grid; for random and asha, SAMPLES distinct ones, or all if there are fewer."""
    if sweep.search == "grid":
        return list(_grid(axes))
    if not _has_range(axes) and len(every := list(_grid(axes))) <= sweep.samples:
        return every
    rng, drawn = np.random.default_rng(sweep.search_seed), {}
    for _ in range(100 * sweep.samples):
        labels, settings = _draw(axes, rng)
        drawn.setdefault(str(labels), (labels, settings))
        if len(drawn) == sweep.samples:
            break
    return list(drawn.values())


def _grid(axes: dict[str, Axis]) -> Iterator[Point]:
    """All combinations; the last axis varies fastest. Axes that come with a choice replace others of the same name."""
    brings = next((name for name, axis in axes.items() if _brings(axis)), None)
    if brings is None:
        for choices in itertools.product(*axes.values()):
            yield _joined(dict(zip(axes, choices, strict=True)))
        return
    for choice in axes[brings]:
        for labels, settings in _grid(_without(axes, brings) | choice.tune):
            yield {brings: choice.label} | labels, choice.settings | settings


def _draw(axes: dict[str, Axis], rng: np.random.Generator) -> Point:
    labels = {}
    settings = {}
    left = dict(axes)
    while left:
        # Axes that bring others along come first: axes they replace are not drawn.
        name = next((name for name, axis in left.items() if isinstance(axis, list) and _brings(axis)), next(iter(left)))
        axis = left.pop(name)
        choice = axis.draw(rng) if isinstance(axis, Range) else axis[rng.integers(len(axis))]
        left |= choice.tune
        labels, settings = labels | {name: choice.label}, settings | choice.settings
    return labels, settings


def _joined(choices: dict[str, Choice]) -> Point:
    settings = {key: value for choice in choices.values() for key, value in choice.settings.items()}
    return {name: choice.label for name, choice in choices.items()}, settings


def _without(axes: dict[str, Axis], name: str) -> dict[str, Axis]:
    return {key: axis for key, axis in axes.items() if key != name}


def _brings(axis: list[Choice]) -> bool:
    return any(choice.tune for choice in axis)


def _has_range(axes: dict[str, Axis]) -> bool:
    return any(isinstance(axis, Range) or any(_has_range(choice.tune) for choice in axis) for axis in axes.values())
