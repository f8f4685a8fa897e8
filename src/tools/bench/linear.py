"""Linear probing on kept features: all its epochs, against one pass of the backbone over the same images."""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...data.loader import Loader
from ...data.opened import open_data
from ...engine.precision import autocast, set_backends
from ...engine.results import RunFolder
from ...engine.trainer import train
from ...models.vit_models import TunedViT
from ...utils.plots import bar_chart
from . import common
from .common import Report

TARGET = 1.3
PER_CLASS = 10


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    with tempfile.TemporaryDirectory() as folder:
        defaults = [
            "DATA.NAME", "folder", "DATA.DATAPATH", folder, "DATA.CACHE_DIR", f"{folder}/cache", "DATA.TRAIN_SPLIT",
            "trainval", "SOLVER.TOTAL_EPOCH", str(args.epochs), "DATA.BATCH_SIZE", str(args.batch),
        ]  # fmt: skip
        cfg = common.config(args, defaults)
        set_backends(cfg, device)
        write_images(Path(folder), args.images, cfg.DATA.CROPSIZE)
        data = open_data(cfg)
        with _quiet():
            loaders, _ = data.loaders(cfg, device)
            model = TunedViT(common.random_vit(cfg), {}, cfg.MODEL, len(data.class_names)).to(device)
            contenders = {
                "one pass of the backbone": lambda: lambda: one_pass(cfg, model, loaders["train"]),
                f"{args.epochs} epochs of linear probing": lambda: lambda: probe(cfg, model, loaders, first=True),
                f"{args.epochs} more": lambda: lambda: probe(cfg, model, loaders, first=False),
            }
            timings = common.take_turns(contenders, args.rounds, device)
    backbone_pass, probing, _ = timings
    ratios = {name: 1 / common.times_as_fast(timings, name, backbone_pass) for name in timings}
    ratio = ratios[probing]
    lines = [
        [name, f"{ratios[name]:.2f}", f"{timing.seconds:.4g}", f"{TARGET}" if name == probing else ""]
        for name, timing in timings.items()
    ]
    table = common.markdown([f"{args.images} images, {args.backbone}", "times the pass", "s", "target"], lines)
    return Report(
        f"{table}\n\n{common.conditions(args, device)}.\n",
        {
            "backbone": args.backbone,
            "images": args.images,
            "epochs": args.epochs,
            "ratio": ratio,
            "ratios": ratios,
            "target": TARGET,
            "contenders": {name: timing.as_dict() for name, timing in timings.items()},
        },
        lambda path: bar_chart(
            {name: timing.seconds for name, timing in timings.items()},
            f"{args.images} images, {args.backbone}: {ratio:.2f} times the pass",
            "seconds",
            path,
        ),
    )


def write_images(folder: Path, count: int, side: int) -> None:
    """Images of noise in class folders: ``count`` to train on, and one test image per class."""
    rng = np.random.RandomState(0)
    for i in range(count):
        _write(folder / "train" / str(i // PER_CLASS) / f"{i}.jpg", rng, side)
    for name in sorted(path.name for path in (folder / "train").iterdir()):
        _write(folder / "test" / name / "test.jpg", rng, side)


def _write(path: Path, rng: np.random.RandomState, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.randint(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


@torch.no_grad()
def one_pass(cfg, model: TunedViT, loader: Loader) -> None:
    model.eval()
    with autocast(cfg, loader.device):
        for images, _ in loader:
            model.features(images)


def probe(cfg, model: TunedViT, loaders: dict[str, Loader], first: bool) -> None:
    """Train from the start, in a folder of its own, so that an interrupted training is not resumed.

    Args:
        first: compute the activations, which later calls find on disk.
    """
    for path in Path(cfg.DATA.CACHE_DIR).glob("*-features-*") if first else ():
        path.unlink()
    with tempfile.TemporaryDirectory() as folder:
        train(cfg, model, loaders, RunFolder(Path(folder)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log lines of every epoch."""
    before = logging.root.level
    logging.root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.root.setLevel(before)
