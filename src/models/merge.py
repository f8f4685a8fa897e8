"""Fold taps into the weights they act on, giving a plain timm state dict.

No method writes merge code. A tapped linear map that is still affine is *measured*: its response to zero is the new
bias, its response to the identity the new weight. LoRA, SSF, RepAdapter, FacT and RLRR all fold this way; a tap that
is not affine is caught by comparing both maps on random input. New blocks (Block Expansion) become blocks of a deeper
ViT.
"""

import math
import re
from collections import defaultdict

import torch
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from .method import wires
from .taps import Keep
from .vit_models import TunedViT

IDLE = (nn.Dropout, DropPath, nn.Identity, Keep)  # taps that change nothing in eval mode


@torch.no_grad()
def merged_state_dict(model: TunedViT) -> dict[str, Tensor]:
    """timm state dict of a ViT without taps that computes what ``model.vit`` computes with them. Call in eval mode.

    With Block Expansion that ViT is deeper: its ``depth`` has one more for every new block.

    Raises:
        ValueError: a tap is not affine, or no weight at its site can take it up, or a method adds features.
    """
    state = {k: v.clone() for k, v in model.vit.state_dict().items()}
    at, new_blocks = defaultdict(list), {}
    for name, site, verb, tap in wires(model.methods):
        if verb == "after" and getattr(tap, "takes_context", False):
            new_blocks[site] = tap.state_dict()
        elif not isinstance(tap, IDLE):
            at[site].append((name, verb, tap))
    for site, taps in at.items():
        op = model.vit.get_submodule(site)
        names = "+".join(dict.fromkeys(name for name, _, _ in taps))
        weight, bias = _measure(op, taps, f"{names} cannot be merged: {site}")
        if not _agrees(op, weight, bias):
            raise ValueError(f"{names} cannot be merged: what it does at {site} is not affine")
        state[f"{site}.weight"] = weight
        if op.bias is not None:
            state[f"{site}.bias"] = bias
        elif bias.any() and site == "patch_embed.proj" and _positions_follow(model.vit):
            state["pos_embed"][:, -model.vit.patch_embed.num_patches :] += bias
        elif bias.any():
            raise ValueError(f"{names} cannot be merged: {site} has no bias to take up the shift")
    return _deeper(state, new_blocks) if new_blocks else state


def _deeper(state: dict[str, Tensor], new_blocks: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """``state`` with each new block after its site ("blocks.3"), and all blocks numbered as they run."""
    expanded = sorted(int(site.split(".")[1]) for site in new_blocks)
    deeper = {}
    for name, tensor in state.items():
        if block := re.match(r"blocks\.(\d+)\.", name):
            number = int(block[1])
            name = f"blocks.{number + sum(i < number for i in expanded)}.{name[block.end() :]}"
        deeper[name] = tensor
    for count, i in enumerate(expanded, start=1):
        deeper |= {f"blocks.{i + count}.{name}": tensor.clone() for name, tensor in new_blocks[f"blocks.{i}"].items()}
    return deeper


def _positions_follow(vit: nn.Module) -> bool:
    """Whether position embeddings, one for each patch, are added to what the patch convolution gives (CLIP)."""
    return getattr(vit, "pos_embed", None) is not None and isinstance(vit.patch_embed.norm, nn.Identity)


def _measure(op: nn.Module, taps: list, where: str) -> tuple[Tensor, Tensor]:
    if isinstance(op, nn.Linear):
        return _measure_linear(op)
    if isinstance(op, nn.Conv2d):
        return _measure_conv(op)
    if isinstance(op, nn.LayerNorm):
        if any(verb != "after" for _, verb, _ in taps):
            raise ValueError(f"{where} is a {type(op).__name__}, which cannot take up what is done to its input")
        return _measure_norm(op, [tap for _, _, tap in reversed(taps)])
    raise ValueError(f"{where} is a {type(op).__name__}, not a linear map, convolution or norm that could take this up")


def _measure_linear(op):
    bias = op(op.weight.new_zeros(1, op.in_features))[0]
    eye = torch.eye(op.in_features, dtype=op.weight.dtype, device=op.weight.device)
    return (op(eye) - bias).T.contiguous(), bias


def _measure_conv(op):
    patch = (op.in_channels // op.groups, *op.kernel_size)
    size, where = math.prod(patch), tuple(pad // step for pad, step in zip(op.padding, op.stride, strict=True))
    eye = torch.eye(size + 1, size, dtype=op.weight.dtype, device=op.weight.device)  # the last row is zero
    same = eye.view(size + 1, *patch).repeat(1, op.groups, 1, 1)  # a group's outputs see the inputs of their own only
    y = op(same)[:, :, *where]  # where the kernel lies on the whole patch
    return (y[:-1] - y[-1]).T.reshape(op.weight.shape).contiguous(), y[-1]


def _measure_norm(op, taps):
    shape = (-1, 1, 1) if isinstance(op, LayerNorm2d) else (-1,)
    bias = torch.zeros_like(op.weight) if op.bias is None else op.bias
    at_zero, at_one = bias.view(shape), (op.weight + bias).view(shape)  # where its normalised input is 0 and 1
    for tap in taps:
        at_zero, at_one = tap(at_zero), tap(at_one)
    return (at_one - at_zero).flatten(), at_zero.flatten()


def _agrees(op: nn.Module, weight: Tensor, bias: Tensor) -> bool:
    if isinstance(op, nn.Conv2d):
        x = torch.randn(2, op.in_channels, *(2 * side for side in op.kernel_size)).to(weight)
        plain = nn.functional.conv2d(x, weight, bias, op.stride, op.padding, groups=op.groups)
    elif isinstance(op, LayerNorm2d):
        x = torch.randn(2, len(weight), 3, 3).to(weight)
        y = nn.functional.layer_norm(x.permute(0, 2, 3, 1), op.normalized_shape, weight, bias, op.eps)
        plain = y.permute(0, 3, 1, 2)
    elif isinstance(op, nn.LayerNorm):
        x = torch.randn(8, weight.shape[-1]).to(weight)
        plain = nn.functional.layer_norm(x, op.normalized_shape, weight, bias, op.eps)
    else:
        x = torch.randn(8, op.in_features).to(weight)
        plain = nn.functional.linear(x, weight, bias)
    return torch.allclose(op(x), plain, rtol=1e-3, atol=1e-4)
