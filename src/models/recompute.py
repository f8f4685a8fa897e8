"""Selective recomputation: a block keeps what is costly to compute, and computes the rest again in the backward pass.

Activation checkpointing (Chen et al., 2016, arXiv:1604.06174) of whole blocks, with the taps at them, where the results
of chosen operations are kept (Korthikanti et al., 2022, arXiv:2205.05198). Gradients are the same to the bit: what is
computed again is the same operations on the same numbers, with the same random ones.

An operation is known by a ``Product``: what it is and the shape of its second factor, which no batch size changes: the
linear map of 3072 outputs and 768 inputs is ("addmm", 768, 3072) in every block and for q, k and v.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .families.names import is_inside
from .method import Site

LEVELS = ("off", "auto", "blocks")  # of MODEL.RECOMPUTE

Product = tuple[str | int, ...]
Plan = Mapping[str, frozenset[Product]]  # of blocks by name: what each keeps beside what enters it

aten = torch.ops.aten
# Operations worth keeping, and which argument is the second factor.
FACTORS = {
    **dict.fromkeys([aten.mm.default, aten.bmm.default, aten.convolution.default], 1),
    **dict.fromkeys([aten.addmm.default, aten.baddbmm.default], 2),
}
ATTENTION: Product = ("attention",)


def product(op: Callable, args: tuple) -> Product | None:
    """Which product an operation is; None: none, but something cheap."""
    if op in FACTORS:
        shape = args[FACTORS[op]].shape
        return (op.__name__.partition(".")[0], *(shape if op is aten.convolution.default else shape[-2:]))
    return ATTENTION if "scaled_dot_product" in op.__name__ and "backward" not in op.__name__ else None


def keeps(kept: frozenset[Product], context: Any, op: Callable, *args, **kwargs) -> CheckpointPolicy:
    """torch's question whether the result of an operation is kept."""
    return CheckpointPolicy.MUST_SAVE if kept and product(op, args) in kept else CheckpointPolicy.PREFER_RECOMPUTE


class Recomputed:
    """A block's ``forward`` that keeps what enters it and the products ``kept`` alone.

    Args:
        forward: the block's own, with all taps.
    """

    def __init__(self, forward: Callable, kept: frozenset[Product]):
        self.whole, self.kept = forward, kept
        # Without anything to keep, torch need not look at every operation.
        self.options = (
            {"context_fn": partial(create_selective_checkpoint_contexts, partial(keeps, kept))} if kept else {}
        )

    def forward(self, *args, **kwargs) -> Any:
        if not torch.is_grad_enabled():
            return self.whole(*args, **kwargs)
        return checkpoint(self.whole, *args, use_reentrant=False, **self.options, **kwargs)


class Inlined:
    """A module's ``forward`` with the taps at it, which run in it and not in hooks around it."""

    def __init__(self, site: Site, forward: Callable):
        self.site, self.whole = site, forward

    def forward(self, *args, **kwargs) -> Any:
        return self.site.run(self.whole, *args, **kwargs)


def recompute(vit: nn.Module, sites: Mapping[str, Site], plan: Plan) -> None:
    """From now on the blocks in ``plan`` keep only what it says; all others keep everything.

    Call it after ``connect`` and before ``torch.compile``.
    """
    if plan == planned(vit):
        return  # what is compiled stays so
    _undo(vit, sites)
    modules = dict(vit.named_modules())
    for name, site in sites.items():
        if any(is_inside(name, block) for block in plan):
            site.take_off()
            modules[name].forward = Inlined(site, modules[name].forward).forward
    for name, kept in plan.items():
        modules[name].forward = Recomputed(modules[name].forward, kept).forward


def planned(vit: nn.Module) -> Plan:
    """The plan that ``recompute`` had last."""
    found = ((name, _ours(module)) for name, module in vit.named_modules())
    return {name: ours.kept for name, ours in found if isinstance(ours, Recomputed)}


def _undo(vit: nn.Module, sites: Mapping[str, Site]) -> None:
    for name, module in vit.named_modules():
        while ours := _ours(module):
            module.forward = ours.whole
            if isinstance(ours, Inlined):
                sites[name].put_around(module)
        if getattr(vars(module).get("forward"), "__self__", None) is module:  # its class's own again
            del module.forward


def _ours(module: nn.Module) -> "Recomputed | Inlined | None":
    ours = getattr(vars(module).get("forward"), "__self__", None)
    return ours if isinstance(ours, (Recomputed, Inlined)) else None
