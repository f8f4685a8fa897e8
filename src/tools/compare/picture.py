"""The pictures of ``compare``: which runs agree and err on the same images, and how far their confidence is right."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ...utils.plots import percent, save_png
from .agreement import Answers, agreement, calibration_error, error_overlap, pairwise, reliability

NUMBERED = 20  # maximum rows of a heat map with numbers in its cells


def draw_agreement(models: list[Answers], path: Path) -> None:
    """Two heat maps: how often runs agree, and the share of errors that they have in common."""
    side = min(16, max(3.4, 0.62 * len(models)))
    figure = Figure(figsize=(2 * side + 3.2, side + 1.4), layout="constrained")
    for axes, title, measure in zip(
        figure.subplots(1, 2), ("same answer, %", "errors in common, %"), (agreement, error_overlap), strict=True
    ):
        values = 100 * np.array(pairwise(models, measure), dtype=float)
        others = values[~np.eye(len(models), dtype=bool)]
        low = np.nanmin(others) if np.isfinite(others).any() else 0
        image = axes.imshow(values, cmap="viridis", vmin=low, vmax=100)
        for y, line in enumerate(values):
            for x, value in enumerate(line if len(models) <= NUMBERED else ()):
                colour = "black" if value > (low + 100) / 2 else "white"
                axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
        names = [model.name for model in models]
        axes.set_xticks(range(len(models)), names, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(len(models)), names if axes.get_subplotspec().is_first_col() else [], fontsize=8)
        axes.set_title(title, fontsize=10)
        figure.colorbar(image, ax=axes, shrink=0.85)
    save_png(figure, path)


def draw_calibration(models: list[Answers], path: Path) -> None:
    """Accuracy against confidence, with point sizes by number of images, and a histogram of confidence."""
    figure = Figure(figsize=(12.5, max(4.2, 0.6 + 0.19 * len(models))), layout="constrained")
    curve, histogram = figure.subplots(1, 2)
    curve.plot([0, 100], [0, 100], ":", color="grey", lw=1)
    for i, model in enumerate(models):
        bins = [interval for interval in reliability(model) if interval.count]
        label = f"{model.name} (error {100 * calibration_error(bins):.1f} %)"
        x, y = percent([interval.confidence for interval in bins]), percent([interval.accuracy for interval in bins])
        curve.plot(x, y, "-", lw=1.2, color=f"C{i % 10}", label=label)
        sizes = [6 + 160 * interval.count / len(model.labels) for interval in bins]
        curve.scatter(x, y, sizes, color=f"C{i % 10}", alpha=0.7)
        edges = np.linspace(0, 100, 16)
        histogram.hist(100 * model.confidence, edges, histtype="step", lw=1.5, color=f"C{i % 10}")
    curve.set_xlabel("confidence, %")
    curve.set_ylabel("accuracy, %")
    histogram.set_xlabel("confidence, %")
    histogram.set_ylabel("images")
    histogram.set_yscale("log")
    for axes in (curve, histogram):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*curve.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save_png(figure, path)
