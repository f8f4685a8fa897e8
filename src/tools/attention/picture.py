"""The picture of attention maps: overlays on one image, one row per model, one column per block and for rollout."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...utils.plots import save_png

COLOURS = "inferno"


def draw_attention(
    image: np.ndarray, rows: dict[str, dict[str, np.ndarray]], title: str, captions: dict[str, str], path: Path
) -> None:
    """Write a PNG.

    Args:
        image: (H, W, 3) in [0, 1].
        rows: model -> column -> (rows, cols), 1 for an even share; each column has its own scale.
        captions: the text below the image in each model's row.
    """
    names = list(next(iter(rows.values())))
    tall = image.shape[0] / image.shape[1]
    size = (1.75 * (1 + len(names)) + 0.9, len(rows) * (1.75 * tall + 0.2) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), 1 + len(names), squeeze=False)
    highest = {name: max(float(maps[name].max()) for maps in rows.values()) or 1.0 for name in names}
    for line, (model, maps) in zip(grid, rows.items(), strict=True):
        _bare(line[0])
        line[0].imshow(image)
        line[0].set_ylabel(_plain(model), fontsize=9)
        line[0].set_xlabel(_plain(captions[model]), fontsize=8)
        for axes, name in zip(line[1:], names, strict=True):
            _bare(axes)
            shown = _overlay(axes, image, maps[name], highest[name])
            axes.set_xlabel(f"at most {maps[name].max():.1f}", fontsize=8)
    for axes, name in zip(grid[0], ["image", *names], strict=True):
        axes.set_title(name, fontsize=9)
    bar = figure.colorbar(shown, ax=grid[:, -1].tolist(), ticks=[0, shown.norm.vmax], shrink=0.8, aspect=25)
    bar.ax.set_yticklabels(["0", "column's\nhighest"], fontsize=7)
    figure.suptitle(_plain(title), fontsize=10)
    save_png(figure, path, dpi=130)


def _overlay(axes: Axes, image: np.ndarray, values: np.ndarray, highest: float):
    """The image in grey, and the map over it."""
    height, width = image.shape[:2]
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(values, cmap=COLOURS, vmin=0, vmax=highest, alpha=0.72, extent=extent, interpolation="bilinear")


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])


def _plain(text: str) -> str:
    """Text escaped so that matplotlib does not read it as mathematics."""
    return text.replace("$", r"\$")
