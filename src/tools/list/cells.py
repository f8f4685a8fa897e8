"""A cell: one method on one small network, tried in full.

A method either says why it does not fit, or keeps all that it promises: training starts where it says, every trained
parameter has a part in the result, what was learned goes into a new model and, where the method folds, into a plain
network of timm.
"""

from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...configs.config import get_cfg
from ...configs.methods import config_name, parse
from ...models.allocation import allocate, pieces
from ...models.merge import load_merged, merged
from ...models.method import DoesNotFit
from ...models.vit_models import METHODS, TunedViT
from .specimens import Specimen

FOLDS, WORKS, REFUSED = "folds", "works", "refused"
TOLERANCE = 1e-6  # relative, in double precision
# Keys of methods whose defaults are for wider networks.
KEYS: dict[str, dict[str, Any]] = {
    "fft": {"FREQ": 30, "SCALE": 10.0},
    "vera": {"R": 8},
    "spt_lora": {"RANK": 2},
    "spt_adapter": {"RANK": 2},
}
BUDGET = 0.05  # of the network's parameters, for methods that spend one


class Fault(RuntimeError):
    """A method breaks a promise, or does not say why it does not fit."""


class Cell(NamedTuple):
    """What a method does on a network.

    Attributes:
        mark: FOLDS (it works, and folds into a plain network of timm), WORKS or REFUSED.
        parameters: how many train, without the head.
        reason: why it is refused, or why a method that folds does not fold here.
    """

    mark: str
    parameters: int = 0
    reason: str = ""


def examine(method: str, specimen: Specimen) -> Cell:
    """Try a method on a network.

    Raises:
        Fault: it breaks a promise, or does not say why it does not fit.
        Exception: whatever else goes wrong.
    """
    cfg = get_cfg().MODEL
    with TemporaryDirectory() as folder:
        make_small(cfg, method, specimen, Path(folder))
        try:
            model = _tuned(method, specimen, cfg, seed=1)
        except ValueError as error:
            reason = _why_refused(method, error)
            if reason.startswith("needs an allocation"):
                raise Fault("it does not say why there can be no allocation") from error
            return Cell(REFUSED, reason=reason)
        again = _tuned(method, specimen, cfg, seed=2)
    images = specimen.images(model.vit)
    _require_start(method, model, images, _pretrained(specimen))
    _move(model)
    features = model.features(images)
    _require_slopes(method, model, features)
    with torch.no_grad():
        _require_saved(model, again, images, features)
        reason = _why_unfolded(method, model, specimen, images, features)
    trained = model.num_trained()
    count = sum(trained.values()) - trained["head"]
    return Cell(FOLDS if METHODS[method].folds and not reason else WORKS, count, reason)


def make_small(cfg: CfgNode, method: str, specimen: Specimen, folder: Path) -> None:
    """Change those of a method's default keys that are too large for small networks, or name files."""
    if config_name(method) not in cfg:
        return
    keys = cfg[config_name(method)]
    keys.update({**METHODS[method].without_files_to_count, **KEYS.get(method, {})})
    if "ALLOCATION" in keys:
        vit, generator = specimen.build(), torch.Generator().manual_seed(4)
        with suppress(DoesNotFit):  # as the method itself will say
            known = pieces(vit)
            random = {
                name: torch.rand((), generator=generator) * torch.rand(piece.shape, generator=generator)
                for name, piece in known.items()
            }
            budget = BUDGET * sum(piece.numel for piece in known.values())
            keys.ALLOCATION = str(folder / "allocation.safetensors")
            allocate(vit, random, METHODS[method].rules(keys, vit), budget).save(keys.ALLOCATION)


def _tuned(method: str, specimen: Specimen, cfg: CfgNode, seed: int) -> TunedViT:
    vit = specimen.build()
    torch.manual_seed(seed)
    return TunedViT(vit, parse(method), cfg, num_classes=0).double().eval()


@cache
@torch.no_grad()
def _pretrained(specimen: Specimen) -> Tensor:
    """The features of the network as it is."""
    vit = specimen.build()
    return _features(vit, specimen.images(vit))


def _features(vit: nn.Module, images: Tensor) -> Tensor:
    return vit.forward_head(vit.forward_features(images), pre_logits=True)


def _error(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


@torch.no_grad()
def _require_start(method: str, model: TunedViT, images: Tensor, plain: Tensor) -> None:
    own, _ = model.features(images).tensor_split([plain.shape[1]], dim=1)  # a method may add some behind them
    error, starts = _error(own, plain), METHODS[method].starts_pretrained
    if starts and not error <= TOLERANCE:
        raise Fault(f"training does not start at the pre-trained model: features differ by {error:.1g}")
    if error <= TOLERANCE and not starts:
        raise Fault("training starts at the pre-trained model, which the method says it does not")


def _move(model: TunedViT) -> None:
    """Every trained parameter away from its start, so that what starts at zero does something."""
    generator = torch.Generator().manual_seed(2)
    for param in model.parameters():
        if param.requires_grad:
            param.data.add_(0.1 * torch.randn(param.shape, generator=generator))


def _require_slopes(method: str, model: TunedViT, features: Tensor) -> None:
    """Every trained parameter must have a gradient, but for those that the method itself calls idle.

    Of the network's own parameters some have one that is zero, such as what attention adds to all of its logits.
    """
    trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
    slopes = torch.autograd.grad(features.square().sum(), list(trained.values()), allow_unused=True)
    without = {
        name
        for name, slope in zip(trained, slopes, strict=True)
        if slope is None or (name.startswith("methods.") and not slope.any())
    }
    idle = {f"methods.{method}.{name}" for name in model.methods[method].idle(model.vit)}
    if without != idle:
        raise Fault(
            f"without gradient: {', '.join(sorted(without)) or 'none'}; idle: {', '.join(sorted(idle)) or 'none'}"
        )


def _require_saved(model: TunedViT, again: TunedViT, images: Tensor, features: Tensor) -> None:
    """What ``model`` learned must be all that ``again`` needs to compute the same."""
    saved = {name: tensor.clone() for name, tensor in model.tuned_state_dict().items()}
    again.load_tuned_state_dict(saved)
    loaded = again.tuned_state_dict()
    if lost := [name for name, tensor in saved.items() if not torch.equal(loaded[name], tensor)]:
        raise Fault(f"saved and loaded, {lost[0]} has other values")
    if not (error := _error(again.features(images), features)) <= 1e-12:  # one sum in another order
        raise Fault(f"saved and loaded, it computes something else: features differ by {error:.1g}")


def _why_unfolded(method: str, model: TunedViT, specimen: Specimen, images: Tensor, features: Tensor) -> str:
    """Why a method that folds does not fold here; "" where it does, or never does."""
    try:
        found = merged(model)
    except ValueError as error:
        reason = _after(error, f"{method} cannot be merged: ")
        return reason if METHODS[method].folds else ""
    if not METHODS[method].folds:
        raise Fault("it folds, which the method says it does not")
    more = len(model.methods[method].wires) if METHODS[method].adds_blocks else 0
    plain = specimen.build(**{"depth": specimen.arguments["depth"] + more} if more else {})
    load_merged(plain, found.state)
    folded = _features(plain, images)
    if found.shift is not None:
        folded = folded + found.shift  # which the head takes up
    if not (error := _error(folded, features)) <= TOLERANCE:
        raise Fault(f"the folded network computes something else: features differ by {error:.1g}")
    return ""


def _why_refused(method: str, error: ValueError) -> str:
    """The reason in what ``TunedViT`` says, without names of method and network and what to do."""
    misfit = f"method {method!r} does not fit the network "
    if str(error).startswith(misfit):
        return str(error).partition("): ")[2].partition(". Choose another method")[0]
    return _after(error, f"{method} ").partition(";")[0]


def _after(error: ValueError, start: str) -> str:
    """What an error says behind ``start``, with which it must begin."""
    if not str(error).startswith(start):
        raise Fault(f"it says no reason, but raises {type(error).__name__}: {error}") from error
    return str(error).removeprefix(start)
