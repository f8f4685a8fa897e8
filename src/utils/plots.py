"""Plots without pyplot: no global state, and no display is needed."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from .io import write_atomic


def heat_map(
    counts: list[list[int | None]],
    rows: list[str],
    columns: list[str],
    marked: list[list[bool]],
    title: str,
    ylabel: str,
    path: Path,
) -> None:
    """A PNG of counts as colours on a logarithmic scale, with numbers; dots in marked cells, None is blank."""
    values = np.array(counts, dtype=float)
    figure = Figure(figsize=(1.6 + 1.1 * len(columns), 1.6 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    highest = max(np.nanmax(values), 2)
    image = axes.imshow(np.maximum(values, 0.5), norm=LogNorm(1, highest), cmap="viridis", aspect="auto")
    for y, line in enumerate(counts):
        for x, count in enumerate(line):
            if count is None:
                continue
            dark = count < highest**0.6
            text = f"{count:,}" + (" ●" if marked[y][x] else "")
            axes.text(x, y, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, label="sensitive parameters")
    save_png(figure, path)


def bar_chart(values: dict[str, float], title: str, xlabel: str, path: Path, logarithmic: bool = False) -> None:
    """A PNG with one horizontal bar per name, the first on top, each with its value."""
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(values)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(values), list(values.values()), color="#31688e")
    axes.bar_label(bars, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values.values()], padding=3)
    axes.invert_yaxis()
    axes.set_xscale("log" if logarithmic else "linear")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(xlabel)
    axes.set_title(title, fontsize=10)
    save_png(figure, path)


def line_chart(
    lines: dict[str, tuple[list[float], list[float]]], title: str, xlabel: str, ylabel: str, path: Path
) -> None:
    """A PNG of lines (x, y) with markers, both axes logarithmic.

    The part of a name before the last comma sets the colour, the part after it the style.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colours, styles = {}, {}
    for name, (x, y) in lines.items():
        group, _, kind = name.rpartition(", ")
        colour = colours.setdefault(group, f"C{len(colours)}")
        style = styles.setdefault(kind, ("o-", "s--", "^:", "x-.")[len(styles)])
        axes.loglog(x, y, style, color=colour, label=name)
    ticks = sorted({value for x, _ in lines.values() for value in x})
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks], rotation=60, fontsize=8)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=10)
    save_png(figure, path)


# A line or a scatter of points: x, y, and half of each point's interval (None for none).
Series = tuple[list[Any], list[float], list[float | None]]
_MARKERS = "os^DvPX*<>"


def panels_chart(
    panels: dict[str, dict[str, Series]],
    xlabel: str,
    ylabel: str,
    paths: list[Path],
    logarithmic: bool = False,
    joined: bool = True,
) -> None:
    """Small charts side by side with one legend, written to each of ``paths``, in the format of its suffix.

    Args:
        panels: title -> name of a series -> its points and intervals; a name has the same style in all panels.
        logarithmic: the x axis.
        joined: draw lines between points, else points only.
    """
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    size = (max(6.4, 3.2 * columns) + 2.6, max(3.8 if lines == 1 else 2.8 * lines, 0.6 + 0.19 * len(names)))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    handles = {}
    for axes, (title, series) in zip(grid, panels.items(), strict=False):
        for name, (x, y, halves) in series.items():
            i = names.index(name)
            style = dict(
                color=f"C{i % 10}", marker=_MARKERS[(i // 10 + i) % 10], ls="-" if joined else "", ms=5, lw=1.2
            )
            errors = [half or 0.0 for half in halves] if any(halves) else None
            handles[name] = axes.errorbar(x, y, yerr=errors, capsize=2, elinewidth=0.8, **style)
        if logarithmic:
            _logarithmic(axes, [value for x, _, _ in series.values() for value in x], joined)
        axes.margins(0.08)
        axes.grid(alpha=0.3)
        axes.set_title(_plain(title), fontsize=9)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    _finish(figure, handles, xlabel, ylabel, paths)


def bars_chart(
    groups: list[str], series: dict[str, tuple[list[float], list[float | None]]], ylabel: str, paths: list[Path]
) -> None:
    """Grouped bars, one per series, with values and intervals; no bar for NaN. Written to each of ``paths``."""
    figure = Figure(
        figsize=(max(6.4, 1.2 + 0.45 * len(groups) * (len(series) + 1)) + 2.6, 4), dpi=150, layout="constrained"
    )
    axes = figure.subplots()
    width = min(0.4, 0.8 / len(series))
    handles = {}
    for i, (name, (y, halves)) in enumerate(series.items()):
        x = np.arange(len(groups)) + width * (i - (len(series) - 1) / 2)
        errors = [half or 0.0 for half in halves]
        handles[name] = axes.bar(x, y, width, yerr=errors if any(errors) else None, capsize=2, color=f"C{i % 10}")
        axes.bar_label(handles[name], ["" if np.isnan(value) else f"{value:.2f}" for value in y], padding=2, fontsize=7)
    axes.set_xticks(range(len(groups)), [_plain(group) for group in groups], rotation=20 if len(groups) > 4 else 0)
    axes.margins(y=0.1)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    _finish(figure, handles, "", ylabel, paths)


def _logarithmic(axes: Axes, x: list[float], joined: bool) -> None:
    """A logarithmic x axis with few ticks: at the points of lines, else one or three per decade."""
    axes.set_xscale("log")
    if joined:
        axes.set_xticks(sorted(set(x)))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if max(x) > 100 * min(x) else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.minorticks_off()


def _finish(figure: Figure, handles: dict, xlabel: str, ylabel: str, paths: list[Path]) -> None:
    figure.legend(handles.values(), [_plain(name) for name in handles], loc="outside right upper", fontsize=7)
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a script that the font lacks: boxes are acceptable
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is now fixed, for all formats
        for path in paths:
            write_atomic(path, lambda temporary, kind=path.suffix[1:]: figure.savefig(temporary, format=kind))


def _plain(text: str) -> str:
    """Text shortened and escaped, so that matplotlib does not read it as mathematics."""
    text = " ".join(text.split())
    return (text if len(text) <= 48 else text[:47] + "…").replace("$", r"\$")


def percent(fractions: list[float]) -> list[float]:
    return [100 * fraction for fraction in fractions]


def save_png(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure, whole or not at all."""
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=dpi, format="png"))
