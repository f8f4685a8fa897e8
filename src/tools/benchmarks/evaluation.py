"""Inference over batches: our evaluator, and a plain loop over a timm model.

    python -m src.tools.bench eval
    python -m src.tools.bench eval --batch 64 --batches 8 MODEL.TRANSFER_TYPE lora FREQFIT freqfit

The methods are MODEL.TRANSFER_TYPE's and FREQFIT's, none unless said; the plain loop's model has none. Every row is
compared with the plain loop in the same precision.
"""

import argparse
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...engine.evaluator import predict
from ...engine.trainer import autocast
from ...models.vit_models import TunedViT, parse
from ...utils.plots import bar_chart
from . import common
from .common import CLASSES, Report, Work

PRECISIONS = {"fp32": ("SOLVER.AMP", "off"), "bf16": ("SOLVER.AMP", "bf16")}

Batches = list[tuple[Tensor, Tensor]]


def add_options(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, batch=16, rounds=5)
    common.add_network_options(parser)
    common.add_compile_option(parser)
    parser.add_argument("--batches", type=common.positive, default=2, help="in one pass (default: %(default)s)")


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    batches = [common.image_batch(common.config(args, []), args.batch, device) for _ in range(args.batches)]
    makers, references = {}, {}
    for precision, forced in PRECISIONS.items():
        cfg, plain = common.config(args, [], forced), f"plain loop over timm, {precision}"
        makers[plain] = partial(_plain_loop, cfg, batches)
        makers[f"ours, {precision}"] = partial(_ours, cfg, batches, False)
        if not args.no_compile:
            makers[f"ours, {precision}, compiled"] = partial(_ours, cfg, batches, True)
        references |= dict.fromkeys(makers.keys() - references.keys(), plain)
    timings = common.take_turns(makers, args.rounds, device)
    rows = {
        name: {
            "reference": references[name],
            "times_as_fast": common.times_as_fast(timings, name, references[name]),
            "images_per_second": args.batch * args.batches / timing.seconds,
            **timing.as_dict(),
            "compile_seconds": timing.compile_seconds if name.endswith("compiled") else None,
            "peak_memory_bytes": timing.peak,
        }
        for name, timing in timings.items()
    }
    lines = [
        [
            name,
            f"{row['times_as_fast']:.2f}",
            f"{row['images_per_second']:,.4g}",
            "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**30:.2f}",
            "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.0f}",
        ]
        for name, row in rows.items()
    ]
    header = [f"{args.batches} batches, {args.backbone}", "times the plain loop", "images/s"]
    table = common.markdown([*header, "peak GPU memory, GiB", "compile s"], lines)
    ratios = {name: row["times_as_fast"] for name, row in rows.items()}
    return Report(
        f"{table}\n\nTimes the plain loop: the one in the same precision. {common.conditions(args, device)}.\n",
        {"backbone": args.backbone, "batch": args.batch, "batches": args.batches, "contenders": rows},
        lambda path: bar_chart(
            ratios, f"Inference with {args.backbone}", "times as fast as the plain loop in the same precision", path
        ),
    )


def _plain_loop(cfg: CfgNode, batches: Batches) -> Work:
    device = batches[0][0].device
    vit = common.random_vit(cfg, CLASSES).to(device)

    @torch.no_grad()
    def accuracy() -> float:
        right = 0
        for images, labels in batches:
            with autocast(cfg, device):
                right += (vit(images).argmax(1) == labels).sum().item()
        return right

    return accuracy


def _ours(cfg: CfgNode, batches: Batches, compiled: bool) -> Work:
    device = batches[0][0].device
    methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    model: nn.Module = TunedViT(common.random_vit(cfg), methods, cfg.MODEL, CLASSES).to(device)
    network = torch.compile(model) if compiled else model
    return lambda: predict(network, batches, autocast(cfg, device))
