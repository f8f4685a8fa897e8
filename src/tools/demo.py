"""The demo: linear probing, LoRA, and LoRA with FreqFit on real handwritten digits, three seeds each.

    python -m src.tools.demo [KEY VALUE ...]

The backbone has seen letters and symbols, never a digit. Prints a table and draws OUTPUT_DIR/digits/demo.png.
"""

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from ..configs.config import ConfigError, load_cfg
from ..utils.logging import setup_logging
from ..utils.plots import save_png
from ..utils.shipped import shipped
from ..utils.signals import stoppable
from .runs import Row, report, run_all

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


def main(argv: list[str]) -> int:
    return stoppable(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default=str(CONFIG), metavar="FILE", help="YAML file with settings")
    parser.add_argument("--seeds", default="", help="seeds, separated by spaces (default: 42 44 82)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the file's")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    try:
        wanted = [
            (label, load_cfg(args.config_file, [*settings, *args.opts, "SEED", seed]))
            for label, settings in METHODS.items()
            for seed in args.seeds.split() or ("42", "44", "82")
        ]
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = run_all(wanted)
    status = report(rows)
    if done := [row for row in rows if row.results]:
        picture = Path(wanted[0][1].OUTPUT_DIR) / "digits" / "demo.png"
        plot(done, picture)
        print(f"\nplot: {picture}; each run's folder: {picture.parent}/vit_micro_glyphs/<method>/...")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
