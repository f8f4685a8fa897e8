"""The pictures of the studies of finished runs."""

import statistics
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...utils.io import write_atomic
from .agreement import Answers, agreement, calibration_error, error_overlap, pairwise, reliability
from .ensembles import Curve
from .robust import Row

NUMBERED = 20  # rows of a heat map whose cells have their numbers
CHOSEN = dict(marker="*", ms=15, mec="black", mew=0.8)


def draw_curves(curves: list[Curve], path: Path) -> None:
    """WiSE: accuracy against alpha, and with shifted sets also own against shifted accuracy, with all alphas."""
    shifted = curves[0].shifted is not None
    figure = Figure(figsize=(11 if shifted else 6.4, 4.4), layout="constrained")
    axes = figure.subplots(1, 2 if shifted else 1, squeeze=False)[0]
    if shifted:
        _draw_trade(axes[0], curves)
    _draw_alphas(axes[-1], curves)
    _save(figure, path)


def _draw_trade(axes: Axes, curves: list[Curve]) -> None:
    for i, curve in enumerate(curves):
        x, y = _percent(curve.own), _percent(curve.shifted)
        axes.plot(x, y, "-", color=f"C{i}", lw=1.2, alpha=0.7)
        axes.plot(x[1:-1], y[1:-1], "o", ms=4, color=f"C{i}", label=curve.run.label)
        axes.plot(x[0], y[0], "s", ms=8, mfc="white", color=f"C{i}")
        axes.plot(x[-1], y[-1], "o", ms=8, color=f"C{i}")
        if curve.chosen is not None:
            axes.plot(x[curve.chosen], y[curve.chosen], color=f"C{i}", **CHOSEN)
    axes.set_xlabel("own test set, top-1 in %")
    axes.set_ylabel("mean of the shifted sets, top-1 in %")
    axes.plot([], [], "s", ms=8, mfc="white", color="grey", label="alpha 0")
    axes.plot([], [], "o", ms=8, color="grey", label="alpha 1, tuned")
    _finish(axes, curves)


def _draw_alphas(axes: Axes, curves: list[Curve]) -> None:
    """A line for each set of a single run; of several runs one for the own set and one for the mean of the others."""
    for i, curve in enumerate(curves):
        lines = {name: [at.top1 for at in found] for name, found in curve.tested.items()}
        if len(curves) > 1:
            lines = {f"{curve.run.label}: own": curve.own}
            lines |= {f"{curve.run.label}: shifted": curve.shifted} if curve.shifted else {}
        for j, (name, y) in enumerate(lines.items()):
            style = dict(color=f"C{i}", ls="--" if j else "-") if len(curves) > 1 else dict(color=f"C{j}")
            axes.plot(curve.alphas, _percent(y), marker="o", ms=4, lw=1.4, label=name, **style)
        if curve.chosen is not None:
            best = curve.alphas[curve.chosen]
            axes.plot(best, 100 * curve.own[curve.chosen], color=f"C{i}" if len(curves) > 1 else "C0", **CHOSEN)
    axes.set_xlabel("alpha, from the pre-trained model (0) to the tuned one (1)")
    axes.set_ylabel("top-1, %")
    _finish(axes, curves)


def draw_robustness(rows: list[Row], path: Path) -> None:
    """Own against shifted accuracy, every run and its row's mean, what is zero-shot as lines; bars for each set."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    trade, bars = figure.subplots(1, 2, width_ratios=(1, 1.35))
    names = list(rows[0].accuracies)
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        colour = f"C{i % 10}" if row.runs else "grey"
        x, y = _percent(row.own), _percent(row.shifted)
        if not row.runs:
            trade.axvline(x[0], color=colour, ls="--", lw=1)
            trade.axhline(y[0], color=colour, ls="--", lw=1)
        trade.plot(x, y, "o", ms=4, color=colour, alpha=0.6)
        trade.plot(
            statistics.mean(x), statistics.mean(y), "o" if row.runs else "*", ms=10, color=colour, label=row.label
        )
        middles = [j + width * (i - (len(rows) - 1) / 2) for j in range(len(names))]
        heights = [100 * statistics.mean(row.accuracies[name]) for name in names]
        drawn = bars.bar(middles, heights, width, color=colour)
        if len(rows) * len(names) <= 48:
            bars.bar_label(drawn, [f"{height:.1f}" for height in heights], fontsize=7, padding=1, rotation=90)
    trade.set_xlabel("own test set, top-1 in %")
    trade.set_ylabel("mean of the shifted sets, top-1 in %")
    trade.legend(fontsize=8)
    bars.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0)
    bars.set_ylabel("top-1, %")
    bars.margins(y=0.14)
    for axes in (trade, bars):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_agreement(models: list[Answers], path: Path) -> None:
    """Two heat maps: how often runs agree, and which share of their errors they have in common."""
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
    _save(figure, path)


def draw_calibration(models: list[Answers], path: Path) -> None:
    """Accuracy against confidence, points as large as they stand for images, and how many images have which."""
    figure = Figure(figsize=(12.5, max(4.2, 0.6 + 0.19 * len(models))), layout="constrained")
    curve, histogram = figure.subplots(1, 2)
    curve.plot([0, 100], [0, 100], ":", color="grey", lw=1)
    for i, model in enumerate(models):
        bins = [one for one in reliability(model) if one.count]
        label = f"{model.name} (error {100 * calibration_error(bins):.1f} %)"
        x, y = _percent([one.confidence for one in bins]), _percent([one.accuracy for one in bins])
        curve.plot(x, y, "-", lw=1.2, color=f"C{i % 10}", label=label)
        sizes = [6 + 160 * one.count / len(model.labels) for one in bins]
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
    _save(figure, path)


def _finish(axes: Axes, curves: list[Curve]) -> None:
    if any(curve.chosen is not None for curve in curves):
        axes.plot([], [], ls="", color="white", **CHOSEN, label="chosen on validation")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)


def _percent(fractions: list[float]) -> list[float]:
    return [100 * fraction for fraction in fractions]


def _save(figure: Figure, path: Path) -> None:
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
