"""Frozen weights in the type in which autocast multiplies them.

Autocast casts a frozen weight anew in every forward, and keeps the cast one until the backward pass. Holding the weight
in that type gives the same results to the bit, saves the casts, and takes half the memory. Only those weights are held
so whose every use is one that autocast casts: of linear maps and convolutions. A weight that a method reads in another
way, such as RLRR, keeps its float32 values, and so does every weight that trains.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..configs.facts import image_size, is_native
from ..models.memo import Memo
from ..models.vit_models import TunedViT
from .memory import shadow_of
from .precision import TYPES, autocast, resolve_amp

# What autocast computes in its own type, with the weight second and the bias third.
PRODUCTS = (torch.nn.functional.linear, torch.conv1d, torch.conv2d, torch.conv3d)
HARMLESS = ("shape", "device", "requires_grad", "is_meta", "ndim", "is_cuda", "layout")  # facts that holding keeps


@contextmanager
def held(model: TunedViT, cfg: CfgNode, device: torch.device, memo: Memo | None = None) -> Iterator[None]:
    """``hold`` inside. What saves, hashes or merges the network belongs outside."""
    release = hold(model, cfg, device, memo)
    try:
        yield
    finally:
        release()


def hold(model: TunedViT, cfg: CfgNode, device: torch.device, memo: Memo | None = None) -> Callable[[], None]:
    """Put frozen weights into the type of SOLVER.AMP where that changes no result; returns what undoes it.

    The float32 values of a model on a GPU wait in the memory of the host. Nothing is done without SOLVER.AMP, where
    SOLVER.FSDP spreads weights, all of which train then, and for images in their own aspect ratios.
    """
    dtype = TYPES.get(resolve_amp(cfg.SOLVER.AMP, device))
    if dtype is None or cfg.SOLVER.FSDP or is_native(cfg):
        return lambda: None
    names = (memo or Memo()).fact("multiplied only", lambda: only_multiplied(model, cfg, device))
    params = [model.get_parameter(name) for name in names]
    kept = [param.data.cpu() for param in params]  # on a CPU, the very tensors
    for param in params:
        param.data = param.data.to(dtype)

    def release() -> None:
        for param, values in zip(params, kept, strict=True):
            param.data = values.to(device)

    return release


def only_multiplied(model: TunedViT, cfg: CfgNode, device: torch.device) -> list[str]:
    """Names of the network's frozen float32 parameters whose every use in a forward is as weight or bias of a product
    inside autocast. Found on shapes alone; ``model`` stays as it is."""
    kind = device.type if torch.cuda.is_available() else "cpu"
    shadow, mode = shadow_of(model, kind)
    shadow.eval()  # some tuners of peft ask for a random number in training
    frozen = {
        id(param): f"vit.{name}"
        for name, param in shadow.vit.named_parameters()
        if not param.requires_grad and param.dtype == torch.float32
    }
    with mode, torch.no_grad(), autocast(cfg, torch.device(kind)), Uses(frozen, kind) as uses:
        try:
            shadow(torch.empty(1, 3, *image_size(cfg), device=kind))
        except Exception:  # of a method that asks for values, or an operation without a form for shapes: hold nothing
            return []
    return [name for key, name in frozen.items() if key in uses.multiplied - uses.other]


class Uses(TorchFunctionMode):
    """How torch uses some tensors, known by their ids: ``multiplied`` under autocast, or in any ``other`` way."""

    def __init__(self, known: dict[int, str], kind: str):
        super().__init__()
        self.known, self.kind = known, kind
        self.multiplied: set[int] = set()
        self.other: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        used = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)} & self.known.keys()
        if used and not self._is_harmless(func):
            product = func in PRODUCTS and id(args[0]) not in used and torch.is_autocast_enabled(self.kind)
            (self.multiplied if product else self.other).update(used)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _is_harmless(func) -> bool:
        return getattr(getattr(func, "__self__", None), "__name__", "") in HARMLESS
