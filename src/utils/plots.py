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
