"""What the forward pass keeps for the backward pass, by method and level of MODEL.RECOMPUTE, and what that costs."""

import argparse

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ...configs.facts import image_size
from ...engine.memory import activation_bytes
from ...engine.precision import TYPES, resolve_amp, set_backends
from ...engine.what_to_keep import set_recompute
from ...models.recompute import LEVELS
from ...models.vit_models import TunedViT, parse
from ...utils.plots import bar_chart
from ...utils.progress import tqdm
from . import common
from .common import CLASSES, Report
from .step import our_step

FULL = "end2end"


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    set_backends(common.config(args, []), device)
    images, labels = common.image_batch(common.config(args, []), args.batch, device)
    rows = {}
    for names in tqdm([FULL, *(n for n in args.methods if n != FULL)], unit="method", leave=False, dynamic_ncols=True):
        row = {"bytes_an_image": {level: kept(names, level, args, device) for level in LEVELS}}
        if not args.no_times:
            row["seconds"] = _seconds(names, args, images, labels)
        rows[names] = row
    full = rows[FULL]["bytes_an_image"]["off"]
    of_full = {name: row["bytes_an_image"]["auto"] / full for name, row in rows.items()}
    return Report(
        _text(rows, full, common.conditions(args, device)),
        {"backbone": args.backbone, "batch": args.batch, "methods": rows},
        lambda path: bar_chart(of_full, f"{args.backbone}, RECOMPUTE auto", "of what full fine-tuning keeps", path),
    )


def kept(names: str, level: str, args: argparse.Namespace, device: torch.device) -> float:
    """Bytes an image, in a batch of ``args.batch``, of a network without numbers.

    Raises:
        ValueError: the methods do not fit the backbone.
    """
    cfg = _config(names, level, args)
    with torch.device("meta"):
        model = _model(names, cfg)
    set_recompute(cfg, model, device)
    dtype = TYPES.get(resolve_amp(cfg.SOLVER.AMP, device))
    return activation_bytes(model, image_size(cfg), device, dtype).of(args.batch) / args.batch


def _seconds(names: str, args: argparse.Namespace, images: Tensor, labels: Tensor) -> dict[str, dict]:
    """Of a training step at every level, in turns."""

    def make(level: str) -> common.Work:
        cfg = _config(names, level, args)
        return our_step(_model(names, cfg).to(images.device), cfg, images, labels)

    makers = {level: lambda level=level: make(level) for level in LEVELS}
    timings = common.take_turns(makers, args.rounds, images.device)
    return {level: timings[level].as_dict() | common.compared(timings, level, "off") for level in LEVELS}


def _config(names: str, level: str, args: argparse.Namespace) -> CfgNode:
    batch = ("DATA.BATCH_SIZE", str(args.batch))
    return common.config(args, [], ("MODEL.TRANSFER_TYPE", names, "MODEL.RECOMPUTE", level, *batch))


def _model(names: str, cfg: CfgNode) -> TunedViT:
    methods = parse(names, cfg.FREQFIT)
    return TunedViT(common.random_vit(cfg), methods, cfg.MODEL, CLASSES, drop_path=cfg.SOLVER.DROP_PATH)


def _text(rows: dict[str, dict], full: float, conditions: str) -> str:
    timed = "seconds" in rows[FULL]
    header = ["MiB an image"]
    for level in LEVELS:
        header += [level, "of full", *["time"] * (timed and level != "off")]
    lines = []
    for name, row in rows.items():
        line = [name]
        for level in LEVELS:
            held = row["bytes_an_image"][level]
            line += [f"{held / 2**20:.1f}", f"{held / full:.2f}"]
            if timed and level != "off":
                line.append(f"{1 / row['seconds'][level]['times_as_fast']:.2f}")
        lines.append(line)
    times = " Time: of a training step, times that without." if timed else ""
    return (
        f"{common.markdown(header, lines)}\n\nWhat a forward pass keeps for the backward pass, without parameters, by "
        f"MODEL.RECOMPUTE, and what share of {FULL}'s without recomputation that is.{times} {conditions}.\n"
    )
