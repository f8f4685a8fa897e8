"""What an operation computes together with the taps at it, measured: the weight and bias of the same affine map."""

import math

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .families.base import RMS_NORMS

CHANNELS_FIRST = (LayerNorm2d, _BatchNorm, nn.GroupNorm)


def measure(op: nn.Module, taps: list[tuple[str, str, nn.Module]], where: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of what ``op`` computes with its taps, each (method, verb, tap).

    Raises:
        ValueError: it is no operation of this kind, or it is not affine with these taps.
    """
    if isinstance(op, nn.Linear):
        weight, bias = _linear(op)
    elif type(op) is nn.Conv2d:
        weight, bias = _conv(op)
    elif isinstance(op, (nn.LayerNorm, _BatchNorm, nn.GroupNorm, *RMS_NORMS)):
        if any(verb != "after" for _, verb, _ in taps):
            raise ValueError(f"{where} is a {type(op).__name__}, which cannot take up what is done to its input")
        weight, bias = _norm(op, [tap for _, _, tap in reversed(taps)])
    else:
        raise ValueError(
            f"{where} is a {type(op).__name__}, not a linear map, convolution or norm that could take this up"
        )
    if not _agrees(op, weight, bias):
        raise ValueError(f"{where} is not affine with what is done there")
    return weight, bias


def _linear(op: nn.Linear) -> tuple[Tensor, Tensor]:
    bias = op(op.weight.new_zeros(1, op.in_features))[0]
    eye = torch.eye(op.in_features, dtype=op.weight.dtype, device=op.weight.device)
    return (op(eye) - bias).T.contiguous(), bias


def _conv(op: nn.Conv2d) -> tuple[Tensor, Tensor]:
    kernel, patch = op.kernel_size, (op.in_channels // op.groups, *op.kernel_size)
    pads = (0, 0) if op.padding == "valid" else op.padding
    if isinstance(pads, str) or any(step != 1 for step in op.dilation):
        return op.weight, torch.zeros_like(op.weight[:, 0, 0, 0])  # what then does not agree
    place = [-(-pad // step) for pad, step in zip(pads, op.stride, strict=True)]  # an output that sees no padding
    first = [at * step - pad for at, step, pad in zip(place, op.stride, pads, strict=True)]
    size = math.prod(patch)
    eye = torch.eye(size + 1, size, dtype=op.weight.dtype, device=op.weight.device)  # the last row is zero
    same = eye.view(size + 1, *patch).repeat(1, op.groups, 1, 1)  # a group's outputs see the inputs of their own only
    canvas = same.new_zeros(size + 1, op.in_channels, *(a + k for a, k in zip(first, kernel, strict=True)))
    canvas[:, :, first[0] :, first[1] :] = same
    y = op(canvas)[:, :, place[0], place[1]]
    return (y[:-1] - y[-1]).T.reshape(op.weight.shape).contiguous(), y[-1]


def _norm(op: nn.Module, taps: list[nn.Module]) -> tuple[Tensor, Tensor]:
    shape = (-1, 1, 1) if isinstance(op, CHANNELS_FIRST) else (-1,)
    bias = torch.zeros_like(op.weight) if getattr(op, "bias", None) is None else op.bias
    at_zero, at_one = bias.view(shape), (op.weight + bias).view(shape)  # where its normalised input is 0 and 1
    for tap in taps:
        at_zero, at_one = tap(at_zero), tap(at_one)
    return (at_one - at_zero).flatten(), at_zero.flatten()


def _agrees(op: nn.Module, weight: Tensor, bias: Tensor) -> bool:
    """Whether ``op`` with its taps computes on random input what weight and bias say."""
    if isinstance(op, nn.Conv2d):
        x = torch.randn(2, op.in_channels, *(2 * side for side in op.kernel_size)).to(weight)
        plain = F.conv2d(x, weight, bias, op.stride, op.padding, op.dilation, op.groups)
    elif isinstance(op, LayerNorm2d):
        x = torch.randn(2, len(weight), 3, 3).to(weight)
        y = F.layer_norm(x.permute(0, 2, 3, 1), op.normalized_shape, weight, bias, op.eps)
        plain = y.permute(0, 3, 1, 2)
    elif isinstance(op, _BatchNorm):
        x = torch.randn(2, len(weight), 3, 3).to(weight)
        plain = F.batch_norm(x, op.running_mean, op.running_var, weight, bias, eps=op.eps)
    elif isinstance(op, nn.GroupNorm):
        x = torch.randn(2, len(weight), 3, 3).to(weight)
        plain = F.group_norm(x, op.num_groups, weight, bias, op.eps)
    elif isinstance(op, RMS_NORMS):
        x = torch.randn(8, len(weight)).to(weight)
        plain = F.rms_norm(x, op.normalized_shape, weight, op.eps) + bias
    elif isinstance(op, nn.LayerNorm):
        x = torch.randn(8, weight.shape[-1]).to(weight)
        plain = F.layer_norm(x, op.normalized_shape, weight, bias, op.eps)
    else:
        x = torch.randn(8, op.in_features).to(weight)
        plain = F.linear(x, weight, bias)
    return torch.allclose(op(x), plain, rtol=1e-3, atol=1e-4)
