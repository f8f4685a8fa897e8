"""Pictures of FreqFit's filters: maps of what they do, and the spectra of token maps before and after them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from torch import Tensor

from ...utils.plots import save_png
from .spectra import Response, Spectrum, by_distance

MOST = 13  # filters in a picture: a ViT-B's


def shown(count: int) -> list[int]:
    """The indices of ``count`` filters that fit in a picture: the first, the last and some in between."""
    return sorted({round(i * (count - 1) / (MOST - 1)) for i in range(MOST)})


def draw_filters(responses: Sequence[Response], title: str, path: Path) -> None:
    """One column per filter: its magnitude, its gain per frequency, and its impulse response."""
    some = [responses[i] for i in shown(len(responses))]
    lines = {
        "magnitude\n|T|": ([response.added.numpy() for response in some], "viridis", _from_zero, "frequency"),
        "gain of each frequency\n|1 + T|": (
            [response.gain.numpy() for response in some],
            "RdBu_r",
            _around_one,
            "frequency",
        ),
        "answer to an impulse\n(of its highest)": (
            [_of_highest(response.field) for response in some],
            "magma",
            _from_zero,
            "offset",
        ),
    }
    flat = len(some[0].shape) == 1
    tall = 1.0 if flat else some[0].shape[0] / some[0].shape[1]
    figure = Figure(figsize=(1.15 * len(some) + 1.9, len(lines) * (1.15 * tall + 0.25) + 0.6), layout="constrained")
    grid = figure.subplots(len(lines), len(some), squeeze=False, sharey="row" if flat else False)
    for line, (name, (maps, colours, norm, x)) in zip(grid, lines.items(), strict=True):
        scale = norm(maps)
        for axes, values in zip(line, maps, strict=True):
            image = _panel(axes, values, colours, scale, x)
        line[0].set_ylabel(name, fontsize=8)
        if not flat:
            figure.colorbar(image, ax=line.tolist(), aspect=12, pad=0.01).ax.tick_params(labelsize=7)
    for axes, response in zip(grid[0], some, strict=True):
        axes.set_title(label(response.site), fontsize=8)
    figure.suptitle(title, fontsize=10)
    save_png(figure, path, dpi=140)


def _panel(axes: Axes, values: np.ndarray, colours: str, scale: Normalize, x: str):
    """Draw a map, or a line for a sequence; returns the image for the colour bar."""
    if values.ndim == 1:
        at = np.arange(len(values)) - len(values) // 2
        axes.plot(at / (len(values) if x == "frequency" else 1), values, linewidth=0.8)
        axes.tick_params(labelsize=6)
        axes.grid(alpha=0.3)
        return None
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(values, cmap=colours, norm=scale)


def _from_zero(maps: list[np.ndarray]) -> Normalize:
    return Normalize(0, max(m.max() for m in maps))


def _around_one(maps: list[np.ndarray]) -> Normalize:
    lowest, highest = min(m.min() for m in maps), max(m.max() for m in maps)
    return TwoSlopeNorm(1.0, min(lowest, 0.99), max(highest, 1.01))


def _of_highest(field: Tensor) -> np.ndarray:
    return (field / field.max().clamp_min(1e-30)).numpy()


def label(site: str) -> str:
    """ "before blocks.3" -> "block 4"; "after blocks.11" -> "after 12"."""
    verb, _, block = site.partition(" blocks.")
    return f"block {int(block) + 1}" if verb == "before" else f"after {int(block) + 1}"


def draw_spectra(responses: Sequence[Response], spectra: Sequence[Spectrum], title: str, path: Path) -> None:
    """One column per filter: the power of token maps by frequency before it, and the factor by which it changes."""
    some = shown(len(responses))
    figure = Figure(figsize=(max(1.25 * len(some), 1.9 * min(len(some), 5)) + 0.8, 4.0), layout="constrained")
    powers, ratios = figure.subplots(2, len(some), squeeze=False, sharex=True, sharey="row")
    for above, below, i in zip(powers, ratios, some, strict=True):
        (x, before), (_, after) = by_distance(spectra[i].before), by_distance(spectra[i].after)
        above.semilogy(x, before, color="C7", linewidth=1.2, label="before")
        above.semilogy(x, after, "--", color="C0", linewidth=1.2, label="after")
        below.axhline(1.0, color="C7", linewidth=0.8)
        below.plot(
            x, [b / a for a, b in zip(before, after, strict=True)], "o-", color="C0", linewidth=1.2, markersize=3
        )
        above.set_title(label(responses[i].site), fontsize=8)
        for axes in (above, below):
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=7)
    powers[0].set_ylabel("mean power", fontsize=8)
    powers[0].legend(fontsize=7)
    ratios[0].set_ylabel("power after / before", fontsize=8)
    figure.supxlabel("frequency, cycles per patch", fontsize=9)
    figure.suptitle(title, fontsize=10)
    save_png(figure, path, dpi=140)
