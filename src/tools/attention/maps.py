"""What a ViT's blocks attend to, and attention rollout (Abnar & Zuidema, 2020, arXiv:2005.00928).

Rollout follows only attention, averaged over heads, with half of each token passing by; what FreqFit or Convpass move
between patches is not included. Prompts are not part of the image: what is read from fresh prompts is lost.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ...models.families import family_of, tokens_of
from ...models.families.stages import Tokens
from ...models.method import wires
from ...models.methods.prompt import Insert
from ...models.patches import unpack
from ...models.sites import blocks
from ...utils.text import a_kind


@dataclass(frozen=True)
class Attention:
    """The attention of one block for one image, averaged over heads.

    Attributes:
        name: of the block, "blocks.3".
        weights: (N, N); row i is what token i reads from prefix, prompts and patches, in this order; rows sum to one.
        fresh: whether this block's prompts were inserted just before it.
    """

    name: str
    weights: Tensor
    fresh: bool


@dataclass(frozen=True)
class Maps:
    """What the reader (the pooled token, or the mean of the pooled tokens) takes from the image.

    Attributes:
        reader: "class token" or "patches".
        blocks: name -> (rows, cols), the patches' shares; they sum to one minus the share of other tokens.
        others: name -> the shares of "class token", "registers" and "prompts", where they exist.
        rollout: (rows, cols), likewise.
    """

    reader: str
    blocks: dict[str, Tensor]
    others: dict[str, dict[str, float]]
    rollout: Tensor

    @property
    def last_others(self) -> dict[str, float]:
        """``others`` of the last block."""
        return list(self.others.values())[-1]

    @staticmethod
    def relative(shares: Tensor) -> np.ndarray:
        """Shares as multiples of an even share."""
        return (shares * shares.numel()).numpy()


def maps_of(vit: nn.Module, methods: nn.ModuleDict, image: Tensor) -> Maps:
    """The maps of one image (1, 3, H, W), or its patches, for a ViT with the taps of ``methods``, or without any.

    Raises:
        ValueError: the network is of another kind, or its attention weights cannot be read.
    """
    tokens = tokens_of(vit)
    if tokens is None:
        raise ValueError(f"attention maps need a ViT with one sequence of tokens; this is {a_kind(vit)}")
    attentions = attention_of(vit, methods, image)
    if image.ndim == 3:
        tokens, attentions = _without_filling(tokens, attentions, image)
    grid, reader = (tokens.rows, tokens.cols), reads(vit, tokens)
    patches = tokens.rows * tokens.cols
    rows = {attention.name: read_by(reader, attention.weights, patches) for attention in attentions}
    return Maps(
        reader,
        {name: row[-patches:].view(grid) for name, row in rows.items()},
        {name: _others(vit, tokens, row) for name, row in rows.items()},
        read_by(reader, rollout(attentions, tokens), patches)[-patches:].view(grid),
    )


def _without_filling(tokens: Tokens, attentions: list[Attention], image: Tensor) -> tuple[Tokens, list[Attention]]:
    """The same for the patches (1, N, W + 3) of the image alone: what fills it up comes last, and is not read."""
    seen = unpack(image)
    rows, cols = (int(last) + 1 for last in seen["patch_coord"].amax((0, 1)))
    filling = int((~seen["patch_valid"]).sum())
    ends = [len(attention.weights) - filling for attention in attentions]
    own = [replace(a, weights=a.weights[:end, :end]) for a, end in zip(attentions, ends, strict=True)]
    return replace(tokens, rows=rows, cols=cols), own


def reads(vit: nn.Module, tokens: Tokens) -> str:
    """The reader: "class token" if that is pooled, else "patches"."""
    return "class token" if vit.global_pool == "token" and tokens.prefix else "patches"


def read_by(reader: str, weights: Tensor, patches: int) -> Tensor:
    """The row of the class token, or the mean of the patches' rows."""
    return weights[0] if reader == "class token" else weights[-patches:].mean(0)


def _others(vit: nn.Module, tokens: Tokens, row: Tensor) -> dict[str, float]:
    has_class = int(family_of(vit).class_token_of(vit) is not None)
    parts = {
        "class token": row[:has_class],
        "registers": row[has_class : tokens.prefix],
        "prompts": row[tokens.prefix : len(row) - tokens.rows * tokens.cols],
    }
    return {name: part.sum().item() for name, part in parts.items() if len(part)}


@torch.inference_mode()
def attention_of(vit: nn.Module, methods: nn.ModuleDict, image: Tensor) -> list[Attention]:
    """The attention of all blocks in execution order, including those that Block Expansion inserted."""
    with listening(vit, methods) as (names, weights):
        family_of(vit).pooled(vit, image)
    if len(names) != len(weights) or not names:
        raise ValueError("the attention of this ViT's blocks cannot be read: they do not compute it as timm does")
    before = [(site, tap) for _, site, verb, tap in wires(methods) if verb == "before"]
    fresh = {site for site, tap in before if isinstance(tap, Insert)}
    return [Attention(name, matrix, name in fresh) for name, matrix in zip(names, weights, strict=True)]


@contextmanager
def listening(vit: nn.Module, methods: nn.ModuleDict) -> Iterator[tuple[list[str], list[Tensor]]]:
    """Inside, every executed block records its name and its attention (N, N) for the first image.

    Fused attention is off meanwhile, so that the weights exist.
    """
    names: list[str] = []
    weights: list[Tensor] = []
    hooks, fused = [], []

    def read(module: nn.Module, args: tuple, attn: Tensor) -> None:
        weights.append(attn[0].mean(0).float().cpu())

    try:
        for name, block in _blocks(vit, methods):
            attention = getattr(block, "attn", None)
            if not hasattr(attention, "attn_drop") or not hasattr(attention, "fused_attn"):
                raise ValueError(f"the attention of {name} cannot be read: it is {a_kind(attention)}")
            hooks.append(block.register_forward_pre_hook(lambda *_, name=name: names.append(name)))
            hooks.append(attention.attn_drop.register_forward_hook(read))
            fused.append((attention, attention.fused_attn))
            attention.fused_attn = False
        yield names, weights
    finally:
        for hook in hooks:
            hook.remove()
        for attention, before in fused:
            attention.fused_attn = before


def _blocks(vit: nn.Module, methods: nn.ModuleDict) -> Iterator[tuple[str, nn.Module]]:
    """All blocks with their names, including new ones that are taps."""
    yield from blocks(vit).items()
    for _, site, verb, tap in wires(methods):
        if verb == "after" and getattr(tap, "takes_context", False):  # a block of Block Expansion
            yield f"new after {site}", tap


def rollout(attentions: list[Attention], tokens: Tokens) -> Tensor:
    """(N, prefix + patches): the share of each output token that comes from each input token of the image.

    Each block passes on half of a token and half of what it reads. Fresh prompts carry nothing of the image.
    """
    patches = tokens.rows * tokens.cols
    flow = torch.eye(tokens.prefix + patches)
    for attention in attentions:
        prompts = len(attention.weights) - tokens.prefix - patches
        kept = flow[tokens.prefix : len(flow) - patches]
        if attention.fresh or len(kept) != prompts:
            kept = flow.new_zeros(prompts, flow.shape[1])
        flow = torch.cat((flow[: tokens.prefix], kept, flow[-patches:]))
        flow = 0.5 * flow + 0.5 * attention.weights @ flow
    return flow
