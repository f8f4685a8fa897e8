"""Optimizers that do what the config says, with VPT's rules for what decays and what learns faster."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from fvcore.common.config import CfgNode
from torch import nn

LAST_BIAS = "head.last_layer.bias"


def build_optimizer(
    named: Iterable[tuple[str, nn.Parameter]], solver: CfgNode, fused: bool = False
) -> torch.optim.Optimizer:
    """torch's SGD, Adam or AdamW over the parameters that train; a group's ``lr_scale`` multiplies its learning rate.

    VPT's rules. sgd, adam: everything decays but the head's last bias; biases, the same one excepted, learn
    BIAS_MULTIPLIER times as fast. adamw: biases do not decay; its epsilon is 1e-6. Where VPT's code does not do what
    the config says, ours does: its AdamW always decays by 0.01, is SGD without decay, and ignores BIAS_MULTIPLIER.

    Args:
        fused: one kernel for all parameters, on a GPU.
    """
    groups = defaultdict(list)
    for name, param in named:
        if param.requires_grad:
            groups[_rules(name, solver)].append(param)
    groups = [
        {"params": params, "lr": solver.BASE_LR * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), params in groups.items()
    ]
    if solver.OPTIMIZER == "sgd":
        return torch.optim.SGD(groups, solver.BASE_LR, momentum=solver.MOMENTUM, fused=fused or None)
    if solver.OPTIMIZER == "adam":
        return torch.optim.Adam(groups, solver.BASE_LR, fused=fused or None)
    return torch.optim.AdamW(groups, solver.BASE_LR, eps=1e-6, fused=fused or None)


def _rules(name: str, solver: CfgNode) -> tuple[float, float]:
    """(multiple of the learning rate, weight decay) of the parameter ``name``."""
    is_bias = "bias" in name.rsplit(".", 1)[-1]
    decays = not is_bias if solver.OPTIMIZER == "adamw" else name != LAST_BIAS
    scale = solver.BIAS_MULTIPLIER if is_bias and name != LAST_BIAS else 1.0
    return scale, solver.WEIGHT_DECAY if decays else 0.0


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """``lr`` for every group, times the group's ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
