"""What an operation computes together with the taps at it, measured: the parameters of the same affine map."""

import math

import torch
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..utils.text import a_kind
from .families.base import RMS_NORMS
from .taps import channels_first
from .twin import twin

# Convolutions that standardise their weight: nothing scales what they compute, or a gain for every output channel does.
STANDARDISED = (StdConv2d, StdConv2dSame)
WITH_GAIN = (ScaledStdConv2d, ScaledStdConv2dSame)
ROWS = 256  # inputs that are measured at once


def measure(op: nn.Module, taps: list[tuple[str, str, nn.Module]], where: str) -> dict[str, Tensor]:
    """Parameters with which ``op`` alone computes what it does with its taps, each (method, verb, tap), by name.

    There is always a "bias", also where ``op`` has none.

    Raises:
        ValueError: it is no operation of this kind, or it is not affine with these taps.
    """
    alone = [tap for _, _, tap in reversed(taps)] if all(verb == "after" for _, verb, _ in taps) else []
    if isinstance(op, nn.Linear):
        found = _linear(op)
    elif isinstance(op, nn.Conv2d) and alone:
        found = _conv_then(op, alone)
    elif type(op) is nn.Conv2d:
        found = _conv(op)
    elif isinstance(op, (nn.LayerNorm, _BatchNorm, nn.GroupNorm, *RMS_NORMS)) and alone:
        found = _norm(op, alone)
    elif isinstance(op, (nn.Conv2d, nn.LayerNorm, _BatchNorm, nn.GroupNorm, *RMS_NORMS)):
        raise ValueError(f"{where} is {a_kind(op)}, which cannot take up what is done to its input or beside it")
    else:
        raise ValueError(f"{where} is {a_kind(op)}, not a linear map, convolution or norm that could take this up")
    if not _agrees(op, found):
        if isinstance(op, STANDARDISED):
            raise ValueError(f"{where} is {a_kind(op)}, which standardises its weight: nothing in it can be scaled")
        raise ValueError(f"{where} is not affine with what is done there")
    return found


def _linear(op: nn.Linear) -> dict[str, Tensor]:
    bias = op(op.weight.new_zeros(1, op.in_features))[0]
    eye = torch.eye(op.in_features, dtype=op.weight.dtype, device=op.weight.device)
    return {"weight": (op(eye) - bias).T.contiguous(), "bias": bias}


def _conv(op: nn.Conv2d) -> dict[str, Tensor]:
    kernel, patch = op.kernel_size, (op.in_channels // op.groups, *op.kernel_size)
    pads = (0, 0) if op.padding == "valid" else op.padding
    if isinstance(pads, str) or any(step != 1 for step in op.dilation):
        return {"weight": op.weight, "bias": torch.zeros_like(op.weight[:, 0, 0, 0])}  # what then does not agree
    place = [-(-pad // step) for pad, step in zip(pads, op.stride, strict=True)]  # an output that sees no padding
    first = [at * step - pad for at, step, pad in zip(place, op.stride, pads, strict=True)]

    def at_place(inputs: Tensor) -> Tensor:
        same = inputs.view(-1, *patch).repeat(1, op.groups, 1, 1)  # a group's outputs see the inputs of their own only
        canvas = same.new_zeros(len(same), op.in_channels, *(a + k for a, k in zip(first, kernel, strict=True)))
        canvas[:, :, first[0] :, first[1] :] = same
        return op(canvas)[:, :, place[0], place[1]]

    eye = torch.eye(math.prod(patch), dtype=op.weight.dtype, device=op.weight.device)
    bias = at_place(torch.zeros_like(eye[:1]))[0]
    columns = torch.cat([at_place(rows) - bias for rows in eye.split(ROWS)])
    return {"weight": columns.T.reshape(op.weight.shape).contiguous(), "bias": bias}


def _conv_then(op: nn.Conv2d, taps: list[nn.Module]) -> dict[str, Tensor]:
    """Of taps that see the outputs alone: they mix channels, at every place alike."""

    def run(y: Tensor) -> Tensor:  # (B, channels)
        y = y[:, :, None, None]
        for tap in taps:
            y = tap(y)
        return y[:, :, 0, 0]

    own = op.weight.new_zeros(op.out_channels) if op.bias is None else op.bias
    eye = torch.eye(op.out_channels, dtype=op.weight.dtype, device=op.weight.device)
    mixing = run(eye) - run(torch.zeros_like(eye[:1]))  # (from, to)
    bias = {"bias": run(own[None])[0]}
    if isinstance(op, STANDARDISED):
        return bias
    if isinstance(op, WITH_GAIN):
        return {"gain": op.gain * mixing.diagonal().view(op.gain.shape), **bias}
    return {"weight": torch.einsum("ft,f...->t...", mixing, op.weight), **bias}


def _norm(op: nn.Module, taps: list[nn.Module]) -> dict[str, Tensor]:
    shape = (-1, 1, 1) if channels_first(op) else (-1,)
    bias = torch.zeros_like(op.weight) if getattr(op, "bias", None) is None else op.bias
    at_zero, at_one = bias.view(shape), (op.weight + bias).view(shape)  # where its normalised input is 0 and 1
    for tap in taps:
        at_zero, at_one = tap(at_zero), tap(at_one)
    return {"weight": (at_one - at_zero).flatten(), "bias": at_zero.flatten()}


def _agrees(op: nn.Module, found: dict[str, Tensor]) -> bool:
    """Whether ``op`` with its taps computes on random input what it does alone with these parameters."""
    if isinstance(op, nn.Conv2d):
        shape = (2, op.in_channels, *(2 * side for side in op.kernel_size))
    elif channels_first(op):
        shape = (2, len(op.weight), 3, 3)
    else:
        shape = (8, op.weight.shape[-1])
    x = torch.randn(shape).to(op.weight)
    plain = twin(op, found)(x)
    if "bias" not in op._parameters:  # an RMS norm: what comes next takes the shift up
        plain = plain + found["bias"]
    return torch.allclose(op(x), plain, rtol=1e-3, atol=1e-4)
