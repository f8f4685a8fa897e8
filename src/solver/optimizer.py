"""Optimizers, with weight decay and a multiple of the learning rate for each parameter."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from itertools import chain

import torch
from fvcore.common.config import CfgNode
from timm.models._manipulate import group_with_matcher
from torch import nn

from ..models.vit_models import TunedViT

LAST_BIAS = "head.last_layer.bias"

Named = Iterable[tuple[str, nn.Parameter]]
Rules = tuple[float, float]  # (multiple of the learning rate, weight decay)


def _sgd(groups: list[dict], solver: CfgNode, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, solver.BASE_LR, momentum=solver.MOMENTUM, fused=fused)


def _adam(groups: list[dict], solver: CfgNode, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, solver.BASE_LR, eps=solver.EPS or 1e-8, fused=fused)


def _adamw(groups: list[dict], solver: CfgNode, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, solver.BASE_LR, eps=solver.EPS or 1e-6, fused=fused)


# SOLVER.OPTIMIZER -> its builder. "lbfgs" does not train in steps: see engine/logistic.py.
OPTIMIZERS: dict[str, Callable[[list[dict], CfgNode, bool | None], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def build_optimizer(
    named: Named, solver: CfgNode, fused: bool = False, model: TunedViT | None = None
) -> torch.optim.Optimizer:
    """torch's SGD, Adam or AdamW over the trained parameters; a group's ``lr_scale`` multiplies its learning rate.

    Args:
        fused: use one kernel for all parameters, on a GPU.
        model: the model of the parameters; needed for SOLVER.DECAY auto and timm, and for SOLVER.LAYER_DECAY.
    """
    groups = [
        {"params": list(params.values()), "lr": solver.BASE_LR * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), params in parameter_groups(named, solver, model).items()
    ]
    return OPTIMIZERS[solver.OPTIMIZER](groups, solver, fused or None)


def parameter_groups(
    named: Named, solver: CfgNode, model: TunedViT | None = None
) -> dict[Rules, dict[str, nn.Parameter]]:
    """The trained parameters, grouped by learning rate multiple and weight decay.

    VPT's rules. sgd, adam: everything decays except the head's last bias; biases, with the same exception, learn
    BIAS_MULTIPLIER times as fast. adamw: biases do not decay. Where VPT's code departs from its config, we follow the
    config: VPT's AdamW always decays by 0.01, is SGD without decay, and ignores BIAS_MULTIPLIER.
    """
    groups, scales = defaultdict(dict), layer_scales(model, solver.LAYER_DECAY) if solver.LAYER_DECAY != 1 else {}
    for name, param in named:
        if param.requires_grad:
            faster = solver.BIAS_MULTIPLIER if _is_bias(name) and name != LAST_BIAS else 1.0
            decay = solver.WEIGHT_DECAY if _decays(name, param, solver, model) else 0.0
            groups[faster * scales.get(name, 1.0), decay][name] = param
    return dict(groups)


def _is_bias(name: str) -> bool:
    return "bias" in name.rsplit(".", 1)[-1]


def _vpt_decays(name: str, param: nn.Parameter, solver: CfgNode, model: TunedViT | None) -> bool:
    """Everything that trains except the head's last bias; with adamw, except all biases."""
    return not _is_bias(name) if solver.OPTIMIZER == "adamw" else name != LAST_BIAS


def _timm_decays(name: str, param: nn.Parameter, solver: CfgNode, model: TunedViT | None) -> bool:
    """As timm's param_groups_weight_decay."""
    spared = getattr(model.vit, "no_weight_decay", set)() if model is not None else ()
    return param.ndim > 1 and not name.endswith(".bias") and not any(fnmatch(name, f"vit.{n}") for n in spared)


# SOLVER.DECAY -> whether a parameter of this name decays. "auto" is the method's own rule, or "vpt".
DECAYS: dict[str, Callable[[str, nn.Parameter, CfgNode, TunedViT | None], bool]] = {
    "vpt": _vpt_decays,
    "timm": _timm_decays,
    "all": lambda name, param, solver, model: True,
    "none": lambda name, param, solver, model: False,
}


def _decays(name: str, param: nn.Parameter, solver: CfgNode, model: TunedViT | None) -> bool:
    """Whether ``param`` decays, according to SOLVER.DECAY."""
    own = model.decays(name, param) if solver.DECAY == "auto" and model is not None else None
    rule = DECAYS["vpt" if solver.DECAY == "auto" else solver.DECAY]
    return rule(name, param, solver, model) if own is None else own


def layer_scales(model: TunedViT, decay: float) -> dict[str, float]:
    """decay^n for each parameter of the ViT with n layers after its own, as in timm's ``param_groups_layer_decay``.

    The head is the last layer; parameters added by methods are not included.
    """
    named = chain(model.vit.named_parameters(), [("head", None)])
    layers = group_with_matcher(named, model.vit.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {f"vit.{name}": decay ** (last - layer) for name, layer in layers.items()}


def describe_groups(model: TunedViT, solver: CfgNode) -> list[dict]:
    """The parameter groups, for the record: numbers in names become *, with their count."""
    groups = []
    for (scale, decay), params in parameter_groups(model.named_parameters(), solver, model).items():
        alike = Counter(re.sub(r"\d+(?=\.|$)", "*", name) for name in params)
        groups.append(
            {
                "lr_scale": scale,
                "weight_decay": decay,
                "tensors": len(params),
                "parameters": sum(param.numel() for param in params.values()),
                "names": dict(alike),
            }
        )
    return groups


def groups_table(groups: list[dict]) -> str:
    """``describe_groups`` as text: each group, then its tensors."""
    lines = []
    for group in groups:
        lines.append(
            f"learning rate x {group['lr_scale']:g}, weight decay {group['weight_decay']:g}: {group['tensors']:,} "
            f"tensors, {group['parameters']:,} parameters"
        )
        lines += [f"  {name}" + (f" ({count})" if count > 1 else "") for name, count in group["names"].items()]
    return "\n".join(lines)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set ``lr`` times ``lr_scale`` in every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
