"""Inference over batches: our evaluator, and a plain loop over a timm model."""

import argparse
from functools import partial

import torch
from fvcore.common.config import CfgNode

from ...engine.evaluator import predict
from ...engine.held import hold
from ...engine.precision import autocast, set_backends
from ...engine.step import compiled
from ...models.vit_models import TunedViT, parse
from ...utils.plots import bar_chart
from . import common
from .common import CLASSES, Report, Work

PRECISIONS = {"fp32": ("SOLVER.AMP", "off"), "bf16": ("SOLVER.AMP", "bf16")}


class Batches(list):
    """(images, labels), all on the device, with what ``predict`` needs of a loader."""

    def __init__(self, cfg: CfgNode, count: int, batch_size: int, device: torch.device):
        super().__init__(common.image_batch(cfg, batch_size, device) for _ in range(count))
        self.batch_size = batch_size
        self.device = device

    def in_order(self, part: tuple[int, int]) -> "Batches":
        return self


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    shared = common.config(args, [])
    set_backends(shared, device)
    batches = Batches(shared, args.batches, args.batch, device)
    makers, references = {}, {}
    for precision, forced in PRECISIONS.items():
        cfg, plain = common.config(args, [], forced), f"plain loop over timm, {precision}"
        makers[plain] = partial(plain_loop, cfg, batches)
        makers[f"ours, {precision}"] = partial(ours, cfg, batches)
        if not args.no_compile:
            forced = (*forced, "MODEL.COMPILE", "True")
            makers[f"ours, {precision}, compiled"] = partial(ours, common.config(args, [], forced), batches)
        references |= dict.fromkeys(makers.keys() - references.keys(), plain)
    timings = common.take_turns(makers, args.rounds, device)
    rows = {
        name: {
            **common.compared(timings, name, references[name]),
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
            common.ratio_text(row),
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


def plain_loop(cfg: CfgNode, batches: Batches) -> Work:
    device = batches.device
    vit = common.random_vit(cfg, CLASSES).to(device)

    @torch.no_grad()
    def count_correct() -> int:
        right = 0
        for images, labels in batches:
            with autocast(cfg, device):
                right += (vit(images).argmax(1) == labels).sum().item()
        return right

    return count_correct


def ours(cfg: CfgNode, batches: Batches) -> Work:
    methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    model = TunedViT(common.random_vit(cfg), methods, cfg.MODEL, CLASSES).to(batches.device)
    hold(model, cfg, batches.device)
    network, context = compiled(model, cfg), autocast(cfg, batches.device)
    return lambda: predict(network, batches, context, padded=cfg.MODEL.COMPILE)
