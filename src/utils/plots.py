"""Pictures, drawn without pyplot: nothing global changes, and no display is needed."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

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
    """A PNG of counts as colours on a logarithmic scale, with their numbers; dots in marked cells, None is blank."""
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
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def bar_chart(values: dict[str, float], title: str, xlabel: str, path: Path, logarithmic: bool = False) -> None:
    """A PNG of one horizontal bar per name, the first on top, each with its number."""
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
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def line_chart(
    lines: dict[str, tuple[list[float], list[float]]], title: str, xlabel: str, ylabel: str, path: Path
) -> None:
    """A PNG of lines (x, y) with their points, both axes logarithmic; names that begin alike share a colour.

    The part of a name before its last comma gives the colour, the part behind it the style.
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
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
