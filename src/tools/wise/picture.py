"""The picture of ``wise``: accuracy against alpha, and with shifted sets what one costs in the other."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...utils.plots import percent, save_png
from .curve import Curve

CHOSEN = dict(marker="*", ms=15, mec="black", mew=0.8)


def draw_curves(curves: list[Curve], path: Path) -> None:
    """WiSE: accuracy against alpha; with shifted sets also own against shifted accuracy over all alphas."""
    shifted = curves[0].shifted is not None
    figure = Figure(figsize=(11 if shifted else 6.4, 4.4), layout="constrained")
    axes = figure.subplots(1, 2 if shifted else 1, squeeze=False)[0]
    if shifted:
        _draw_trade(axes[0], curves)
    _draw_alphas(axes[-1], curves)
    save_png(figure, path)


def _draw_trade(axes: Axes, curves: list[Curve]) -> None:
    for i, curve in enumerate(curves):
        x, y = percent(curve.own), percent(curve.shifted)
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
    """For a single run a line per set; for several runs, one for the own set and one for the mean of the others."""
    for i, curve in enumerate(curves):
        lines = {name: [at.top1 for at in accuracies] for name, accuracies in curve.tested.items()}
        if len(curves) > 1:
            lines = {f"{curve.run.label}: own": curve.own}
            lines |= {f"{curve.run.label}: shifted": curve.shifted} if curve.shifted else {}
        for j, (name, y) in enumerate(lines.items()):
            style = dict(color=f"C{i}", ls="--" if j else "-") if len(curves) > 1 else dict(color=f"C{j}")
            axes.plot(curve.alphas, percent(y), marker="o", ms=4, lw=1.4, label=name, **style)
        if curve.chosen is not None:
            best = curve.alphas[curve.chosen]
            axes.plot(best, 100 * curve.own[curve.chosen], color=f"C{i}" if len(curves) > 1 else "C0", **CHOSEN)
    axes.set_xlabel("alpha, from the pre-trained model (0) to the tuned one (1)")
    axes.set_ylabel("top-1, %")
    _finish(axes, curves)


def _finish(axes: Axes, curves: list[Curve]) -> None:
    if any(curve.chosen is not None for curve in curves):
        axes.plot([], [], ls="", color="white", **CHOSEN, label="chosen on validation")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
