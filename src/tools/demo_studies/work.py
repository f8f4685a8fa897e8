"""What ``vitune studies`` does: tune on the digits, then call every tool on the finished runs."""

import argparse
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

from ...configs.config import load_cfg
from ..attention import __main__ as attention
from ..compare import __main__ as compare
from ..demo.work import CONFIG
from ..filters import __main__ as filters
from ..forgetting import __main__ as forgetting
from ..pretrain_demo import draw_pictures
from ..robustness import __main__ as robustness
from ..runs.work import report, run_all
from ..wise import __main__ as wise

# Validated on images that are not trained on, so that alpha can be chosen.
HELD_OUT = ["DATA.TRAIN_SPLIT", "train"]
METHODS = {
    "linear": ["MODEL.TRANSFER_TYPE", "linear", "SOLVER.BASE_LR", "0.01", "SOLVER.TOTAL_EPOCH", "100"],
    "ssf": ["MODEL.TRANSFER_TYPE", "ssf", "SOLVER.BASE_LR", "0.01"],
    "lora": ["MODEL.TRANSFER_TYPE", "lora"],
    "lora + freqfit": ["MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit"],
}
SEEDS = ("42", "44")
SHIFTS = ["noise=0.3", "rotation=30", "inversion"]


def some_digits(folder: Path) -> list[Path]:
    """A few digits as image files, one of each class."""
    digits = load_digits()
    paths = []
    for digit in (2, 3, 5, 8):
        i = int((digits.target == digit).argmax())
        path = folder / f"{digit}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 255 / 16).astype("uint8")).save(path)
        paths.append(path)
    return paths


def call_tool(tool: Callable[[list[str]], int], *arguments: object) -> int:
    """Call a tool's ``main`` and print the command for it."""
    command = [str(argument) for argument in arguments]
    name = tool.__module__.split(".")[-2]
    print(f"\nvitune {name} {' '.join(command)}\n", flush=True)
    return tool(command)


def perform(args: argparse.Namespace) -> int:
    wanted = [
        (label, load_cfg(CONFIG, [*settings, *HELD_OUT, *args.opts, "SEED", seed]))
        for label, settings in METHODS.items()
        for seed in SEEDS
    ]
    rows = run_all(wanted)
    if status := report(rows):
        return status
    runs = {row.label: [folder.path for folder in row.folders] for row in rows}
    every = [path for paths in runs.values() for path in paths]
    out = Path(wanted[0][1].OUTPUT_DIR) / "digits" / "studies"
    if not (out / "letters").is_dir():
        draw_pictures(out / "letters", seed=1)
    images = some_digits(out / "images")
    filtered = runs["lora + freqfit"][0]
    return max(
        call_tool(forgetting.main, *every, "--on", f"letters={out / 'letters'}", "--to", out / "forgetting"),
        call_tool(robustness.main, *every, "--shift", *SHIFTS, "--to", out / "robustness"),
        call_tool(
            wise.main, runs["ssf"][0], runs["lora"][0], "--start", runs["linear"][0], "--shift", *SHIFTS,
            "--to", out / "wise",
        ),
        call_tool(compare.main, *every, "--to", out / "compare"),
        call_tool(filters.main, filtered, *images, "--to", out / "filters"),
        call_tool(attention.main, filtered, *images, "--to", out / "attention"),
    )  # fmt: skip
