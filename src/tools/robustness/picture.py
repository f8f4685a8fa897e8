"""The picture of ``robustness``: accuracy on shifted sets against accuracy on the run's own, and each set's."""

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from ...utils.plots import percent, save_png
from .accuracy import Row


def draw_robustness(rows: list[Row], path: Path) -> None:
    """Own against shifted accuracy: every run and its row's mean, zero-shot models as lines; bars per set."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    trade, bars = figure.subplots(1, 2, width_ratios=(1, 1.35))
    names = list(rows[0].accuracies)
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        colour = f"C{i % 10}" if row.runs else "grey"
        x, y = percent(row.own), percent(row.shifted)
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
    save_png(figure, path)
