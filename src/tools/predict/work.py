"""What ``vitune predict`` does: classes and probabilities of image files, as CSV or JSON."""

import argparse
import csv
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import simplejson
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ...configs.config import ConfigError
from ...data.image_files import find_images, read_images
from ...data.pixels import normalise
from ...engine.evaluator import require_numbers
from ...engine.precision import autocast
from ...utils.io import write_atomic
from ...utils.progress import tqdm
from ...utils.text import reader_may_leave
from ..finished.command import paths_and_settings
from ..finished.run import FinishedRun, open_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """One file's probabilities of all classes (C,), float64, and the labels of the most likely ones, best first."""

    file: str
    probabilities: Tensor
    top: list[int]


def predictions(
    run: FinishedRun, files: Sequence[str], top: int, batch_size: int, broken: dict[str, str]
) -> Iterator[Prediction]:
    """Yield predictions file by file; files that cannot be decoded go into ``broken`` with the reason."""
    bar = tqdm(desc="predicting", total=len(files), unit="img", leave=False)
    with bar:
        for names, images in _batches(run, files, batch_size, broken, bar):
            for name, row in zip(names, probabilities(run, images, names), strict=True):
                yield Prediction(name, row, row.topk(top).indices.tolist())


def _batches(
    run: FinishedRun, files: Sequence[str], batch_size: int, broken: dict[str, str], bar: tqdm
) -> Iterator[tuple[list[str], Tensor]]:
    """Names and images (B, 3, H, W), or patches, in 0..255, on the run's device; the last batch may be smaller."""
    names, images = [], []
    for name, image in read_images(files, run.tuned.pixels, run.cfg.DATA.NUM_WORKERS):
        bar.update()
        if isinstance(image, str):
            broken[name] = image
            logger.warning("broken: %s: %s", name, image)
            continue
        names.append(name)
        images.append(image)
        if len(names) == batch_size:
            yield names, run.tuned.pixels.batch(images).to(run.device)
            names, images = [], []
    if names:
        yield names, run.tuned.pixels.batch(images).to(run.device)


@torch.inference_mode()
def probabilities(run: FinishedRun, images: Tensor, names: Sequence[str]) -> Tensor:
    """Images (B, 3, H, W), or patches, in 0..255 -> float64 (B, classes) on the CPU.

    Raises:
        BrokenModel: the model outputs NaN or infinity for a file, which is named.
    """
    mean, std = (
        torch.tensor(v, device=run.device).view(3, 1, 1) for v in (run.tuned.pixels.mean, run.tuned.pixels.std)
    )
    with autocast(run.cfg, run.device):
        logits = run.model(normalise(images, mean, std))
    return to_probabilities(run.cfg, logits.double().cpu(), names)


def to_probabilities(cfg: CfgNode, logits: Tensor, names: Sequence[str]) -> Tensor:
    """Of logits (B, classes), by the loss that the run was trained with.

    Raises:
        BrokenModel: the logits of a file are NaN or infinite; it is named.
    """
    for name, row in zip(names, logits, strict=True):
        require_numbers(row, name)
    return logits.sigmoid() if cfg.SOLVER.LOSS == "sigmoid" else logits.softmax(dim=1)


def write_csv(
    file: TextIO,
    results: Iterator[Prediction],
    class_names: list[str],
    top: int,
    every: bool,
    cell: Callable[[str], str] = str,
) -> None:
    """One line per file: name, class, probability, the next most likely, and with ``every`` a column per class.

    Args:
        cell: converts a user's text (a file name or class name) for a cell.
    """
    class_names = [cell(name) for name in class_names]
    head = ["file", "class", "probability"]
    head += [f"{what}_{rank}" for rank in range(2, top + 1) for what in ("class", "probability")]
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(head + ([f"p({name})" for name in class_names] if every else []))
    for prediction in results:
        ranked = [value for i in prediction.top for value in (class_names[i], _number(prediction.probabilities[i]))]
        lines.writerow([cell(prediction.file), *ranked, *(map(_number, prediction.probabilities) if every else ())])


def spreadsheet_cell(text: str) -> str:
    """``text``, after an apostrophe if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _number(probability: Tensor) -> str:
    """Six significant digits."""
    return f"{probability.item():.6g}"


def write_json(
    file: TextIO, results: Iterator[Prediction], run: FinishedRun, every: bool, broken: dict[str, str]
) -> None:
    """Write the classes, the predictions, and the broken files."""
    names = run.class_names
    listed = []
    for prediction in results:
        ranked = [
            {"class": names[i], "label": i, "probability": prediction.probabilities[i].item()} for i in prediction.top
        ]
        entry = {"file": prediction.file, **ranked[0], "top": ranked}
        listed.append(entry | ({"probabilities": prediction.probabilities.tolist()} if every else {}))
    content = {
        "run": str(run.folder.path),
        "backbone": run.cfg.DATA.FEATURE,
        "methods": run.label,
        "classes": names,
        "predictions": listed,
        "broken": [{"file": name, "why": why} for name, why in broken.items()],
    }
    simplejson.dump(content, file, indent=1, ignore_nan=True)
    file.write("\n")


def perform(args: argparse.Namespace) -> int:
    """Predict, and report what could not be; the exit status."""
    (run_dir, *images), settings = paths_and_settings(args.paths)
    if not images:
        raise ConfigError("no IMAGES are given: name files, folders or patterns after RUN_DIR")
    if args.batch < 0 or args.top < 1:
        raise ConfigError(f"--batch {args.batch} --top {args.top}: both must be at least 1")
    missing: dict[str, str] = {}
    files = find_images(images, missing)
    for name, why in missing.items():
        logger.warning("%s %s", name, why)
    run = open_run(run_dir, settings)
    top = min(args.top, len(run.class_names))
    size = args.batch or run.cfg.DATA.EVAL_BATCH_SIZE or run.cfg.DATA.BATCH_SIZE
    broken = dict(missing)
    results = predictions(run, files, top, size, broken)

    def write(file: TextIO) -> None:
        if args.to and args.to.suffix == ".json":
            write_json(file, results, run, args.probabilities, broken)
        else:
            cell = spreadsheet_cell if args.for_spreadsheets else str
            write_csv(file, results, run.class_names, top, args.probabilities, cell)

    def write_file(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            write(file)

    if args.to:
        write_atomic(args.to, write_file)
    else:
        with reader_may_leave():
            write(sys.stdout)
    unreadable = [name for name in broken if name not in missing]
    done = len(files) - len(unreadable)
    logger.info(f"{done:,} of {len(files):,} images predicted" + (f": {args.to}" if args.to else ""))
    if unreadable:
        message = f"{len(unreadable):,} of {len(files):,} files are broken: {', '.join(unreadable)}"
        print(f"error: {message}", file=sys.stderr)
    if missing:
        print(f"error: no predictions for {', '.join(missing)}", file=sys.stderr)
    return 1 if broken else 0
