"""What ``vitune demo`` does: three methods on the digits, with three seeds each, and a plot."""

import argparse
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from ...configs.config import load_cfg
from ...utils.plots import save_png
from ...utils.shipped import shipped
from ..runs.work import Row, report, run_all

CONFIG = shipped("configs") / "digits.yaml"

# Linear probing gets the epochs it wants: its features are computed once, so they cost next to nothing.
METHODS = {
    "linear": ["MODEL.TRANSFER_TYPE", "linear", "SOLVER.BASE_LR", "0.01", "SOLVER.TOTAL_EPOCH", "100"],
    "lora": ["MODEL.TRANSFER_TYPE", "lora"],
    "lora + freqfit": ["MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit"],
}


def plot(rows: list[Row], path: Path) -> None:
    """Accuracy of every seed and their mean, one column per method, with its trained parameters."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for x, row in enumerate(rows):
        percent = [100 * a for a in row.accuracies]
        mean = statistics.mean(percent)
        axes.plot([x - 0.25, x + 0.25], [mean, mean], color=f"C{x}", linewidth=3)
        axes.scatter([x] * len(percent), percent, color=f"C{x}", zorder=3, alpha=0.7)
        axes.annotate(f"{mean:.1f} %", (x + 0.28, mean), va="center", fontsize=11)
    labels = [f"{row.label}\n{row.trained:,} + head\n{row.seconds:.0f} s a run" for row in rows]
    axes.set_xticks(range(len(rows)), labels)
    axes.set_xlim(-0.5, len(rows) - 0.3)
    axes.set_ylabel("test top-1, %")
    axes.set_title("Digits, with a ViT pre-trained on letters\nevery seed, and the mean")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path)
    plt.close(figure)


def perform(args: argparse.Namespace) -> int:
    wanted = [
        (label, load_cfg(args.config_file or CONFIG, [*settings, *args.opts, "SEED", seed]))
        for label, settings in METHODS.items()
        for seed in args.seeds.split()
    ]
    rows = run_all(wanted)
    status = report(rows)
    if done := [row for row in rows if row.results]:
        picture = Path(wanted[0][1].OUTPUT_DIR) / "digits" / "demo.png"
        plot(done, picture)
        print(f"\nplot: {picture}; each run's folder: {picture.parent}/vit_micro_glyphs/<method>/...")
    return status
