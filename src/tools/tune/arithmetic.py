"""Estimated run times from arithmetic alone: a backbone's shapes and what a method adds. No weights, no images.

Adapters and similar modules cost a few percent of the backbone and are not counted; added tokens and blocks are, and
so is the backward pass.
"""

from dataclasses import dataclass
from functools import cache

import torch
from fvcore.common.config import CfgNode
from torch.utils.flop_counter import FlopCounterMode

from ...data.pixels import build_pixels
from ...data.tasks import Task
from ...models.families import tokens_of
from ...models.vit_backbones.build import architecture
from ...models.vit_models import method_keys, parse
from .estimate import Speed


@dataclass(frozen=True)
class Shape:
    """A backbone's FLOPs per image (forward, two per multiply-add), number of blocks, tokens and channels."""

    flops: int
    depth: int
    tokens: int
    dim: int


@cache
def shape(feature: str, size: tuple[int, int]) -> Shape:
    """The shape of ``DATA.FEATURE`` on images of ``size``; tokens and channels are 0 unless it is a ViT."""
    with torch.device("meta"):
        net = architecture(feature, size)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            net.eval()(torch.empty(1, 3, *size))
    flops = counter.get_total_flops()
    tokens = tokens_of(net)
    if tokens is None:
        return Shape(flops, 12, 0, 0)
    return Shape(flops, tokens.depth, tokens.prefix + tokens.rows * tokens.cols, tokens.dim)


def work(cfg: CfgNode, of: Shape) -> tuple[float, float]:
    """FLOPs per image: of the forward pass, and of a whole training step."""
    methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    own = {name: method_keys(cfg.MODEL, name, implied) for name, implied in methods.items()}
    prompts = own["prompt"]["NUM_TOKENS"] if "prompt" in own else 0
    forward = of.flops + prompts * 2 * of.depth * (12 * of.dim**2 + 2 * of.dim * (2 * of.tokens + prompts))
    if "block" in own:
        added = of.depth // own["block"]["SPLIT"] if own["block"]["SPLIT"] else own["block"]["NUM_BLOCKS"]
        forward *= 1 + added / of.depth
    if not methods:
        return forward, forward
    if "end2end" in own:
        return forward, 3 * forward
    if own.keys() == {"partial"}:  # the last blocks' gradients, of inputs and weights
        return forward, forward * (1 + 2 * min(1, own["partial"]["NUM_BLOCKS"] / of.depth))
    return forward, 2 * forward


def speed(cfg: CfgNode, task: Task, flops_per_second: float) -> Speed:
    """The speed on an accelerator with this many FLOP/s; loading images is not counted."""
    pixels = build_pixels(cfg, task.protocol)
    forward, step = work(cfg, shape(cfg.DATA.FEATURE, tuple(pixels.size)))
    same = not pixels.random and not cfg.SOLVER.DROP_PATH  # the same in every epoch
    kept = forward == step and same and cfg.DATA.CACHE_FEATURES != "off"  # only the head trains
    return Speed(0.0, step / flops_per_second, forward / flops_per_second, kept)
