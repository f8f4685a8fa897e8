"""Networks, configs and steps that several parts use."""

from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ....configs.config import load_cfg
from ....configs.methods import parse
from ....engine.held import hold
from ....engine.step import TrainingStep, compiled
from ....models.vit_models import TunedViT
from ....solver.losses import build_loss
from ....solver.optimizer import build_optimizer
from ...list.cells import make_small
from ...list.specimens import Specimen
from .. import common
from .finding import Room

CLASSES = 5


def config(*pairs: str) -> CfgNode:
    """The digits' task with AdamW, and these KEY VALUE pairs."""
    digits = ("DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32")
    return load_cfg("", [*digits, "SOLVER.OPTIMIZER", "adamw", "SOLVER.BASE_LR", "1e-3", *pairs])


def small(methods: str, freqfit: str, specimen: Specimen, folder: Path) -> TunedViT:
    """A small network, tuned, in float32 on the CPU, with every trained parameter away from its start.

    Raises:
        ValueError: a method does not fit the network.
    """
    model = config().MODEL
    model.defrost()
    for method in parse(methods):
        make_small(model, method, specimen, folder)
    vit = specimen.build().float()
    torch.manual_seed(1)
    tuned = TunedViT(vit, parse(methods, freqfit), model, CLASSES)
    generator = torch.Generator().manual_seed(2)
    for param in tuned.parameters():
        if param.requires_grad:
            param.data.add_(0.05 * torch.randn(param.shape, generator=generator))
    return tuned


def step_of(cfg: CfgNode, model: TunedViT, network: nn.Module | None = None) -> TrainingStep:
    """The trainer's step for ``model``, which may run as another ``network``, such as a compiled one."""
    device = next(model.parameters()).device
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER, fused=device.type == "cuda", model=model)
    return TrainingStep(cfg, network or model, optimizer, build_loss("softmax", None, 0.0), device)


def large_config(room: Room, methods: str, freqfit: str, *pairs: str) -> CfgNode:
    """Of what is timed."""
    own = ("MODEL.TRANSFER_TYPE", methods, "FREQFIT", freqfit, "MODEL.SIDE.WEIGHTS", "", *pairs)
    return common.config(room.options(), [], own)


def large_step(room: Room, methods: str, freqfit: str, *pairs: str) -> common.Work:
    """A training step on one batch that is on the device already."""
    cfg = large_config(room, methods, freqfit, *pairs)
    model = large(room, cfg)
    images, labels = common.image_batch(cfg, room.batch, torch.device(room.device))
    step = step_of(cfg, model, compiled(model, cfg))
    return lambda: step(images, labels)


def large(room: Room, cfg: CfgNode) -> TunedViT:
    """The backbone that is timed, with random weights, tuned, on the device; its frozen weights as the trainer holds
    them."""
    methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    model = TunedViT(common.random_vit(cfg), methods, cfg.MODEL, common.CLASSES).to(room.device)
    hold(model, cfg, torch.device(room.device))
    return model
