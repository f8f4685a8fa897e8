"""The picture of forgetting: accuracy on the new task against what is left on the old one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...utils.plots import save_png

FROZEN = dict(color="black", ls="--", lw=1.3, zorder=4)
MARKERS = "os^DvPX*<>"


@dataclass(frozen=True)
class Point:
    """A run: its label, its group (shown by colour), and top-1 as fractions; ``new`` is None if not measured.

    ``knn`` and ``frozen`` are k -> top-1 on the old set, after and before tuning.
    """

    label: str
    group: str
    new: float | None
    knn: dict[int, float]
    frozen: dict[int, float]


def draw_forgetting(points: list[Point], k: int, old: str, new: str, path: Path) -> None:
    """A PNG: new against old accuracy at ``k`` with lines of equal mean; old accuracy over k. Dashed: before tuning."""
    measured = [point for point in points if point.new is not None]
    several = len({k for point in points for k in point.knn}) > 1
    count = bool(measured) + (several or not measured)
    figure = Figure(figsize=(1.2 + 4.9 * count, 4.4), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    groups = list(dict.fromkeys(point.group for point in points))
    style = {group: dict(color=f"C{i % 10}", marker=MARKERS[i % len(MARKERS)]) for i, group in enumerate(groups)}
    if measured:
        _draw_trade(axes[0], measured, style, k)
        axes[0].set_xlabel(f"{old}: k-NN top-1 of the tuned encoder, % (k = {k})")
        axes[0].set_ylabel(f"{new}: test top-1, %")
    if len(axes) > bool(measured):
        _draw_ks(axes[-1], points, style)
        axes[-1].set_ylabel(f"{old}: k-NN top-1, %")
    for panel in axes:
        panel.grid(alpha=0.25)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=min(4, len(unique)), fontsize=8)
    save_png(figure, path)


def _draw_trade(axes: Axes, points: list[Point], style: dict, k: int) -> None:
    for value in dict.fromkeys(point.frozen[k] for point in points):
        axes.axvline(100 * value, label="before tuning", **FROZEN)
    for point in points:
        drawn = dict(ls="", ms=8, alpha=0.85, zorder=5, label=point.group) | style[point.group]
        axes.plot(100 * point.knn[k], 100 * point.new, **drawn)
    left, right = _around([value for point in points for value in (point.knn[k], point.frozen[k])])
    bottom, top = _around([point.new for point in points])
    ends = (left + bottom) / 2, (right + top) / 2
    for mean in MaxNLocator(6).tick_values(*ends):
        if ends[0] < mean < ends[1]:
            _draw_equal_mean(axes, mean, (left, right), (bottom, top))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _around(fractions: list[float]) -> tuple[float, float]:
    """Limits of an axis in percent, with a margin around the points but hardly any beyond 100."""
    low, high = 100 * min(fractions), 100 * max(fractions)
    room = max(0.15 * (high - low), 0.5)
    return low - room, min(high + room, 100.3)


def _draw_equal_mean(axes: Axes, mean: float, x: tuple[float, float], y: tuple[float, float]) -> None:
    """The part of (x + y) / 2 = mean inside the axes, labelled where it enters from the left or the top."""
    first = max(x[0], 2 * mean - y[1])
    last = min(x[1], 2 * mean - y[0])
    axes.plot([first, last], [2 * mean - first, 2 * mean - last], color="#bbbbbb", lw=0.8, zorder=0)
    axes.annotate(
        f"mean {mean:g}",
        (first, 2 * mean - first),
        (3, -2),
        textcoords="offset points",
        va="top",
        fontsize=6.5,
        color="#888888",
    )


def _draw_ks(axes: Axes, points: list[Point], style: dict) -> None:
    frozen = {tuple(point.frozen.items()): point for point in points}
    for point in frozen.values():
        axes.plot(*_percent(point.frozen), label="before tuning", **FROZEN)
    for point in points:
        axes.plot(*_percent(point.knn), ms=5, lw=1.3, alpha=0.85, label=point.group, **style[point.group])
    ks = sorted({k for point in points for k in point.knn})
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_xlabel("k")


def _percent(values: dict[int, float]) -> tuple[list[int], np.ndarray]:
    return list(values), 100 * np.array(list(values.values()))
