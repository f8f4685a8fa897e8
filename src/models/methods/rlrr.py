"""RLRR: rescale every frozen weight by a rank-one residual (Dong et al., 2024, arXiv:2403.19067).

"Low-rank Rescaled Vision Transformer Fine-Tuning: A Residual Design Approach". The weight of every linear map becomes
W' = W + W * (s_out s_in^T), elementwise, and its bias b' = b + t; norms and the patch projection get SSF's scale and
shift.

As in the original code this starts near the pre-trained model, not at it: s_out and s_in begin at random, W' about 7 %
from W at 768 channels. What that code calls drop-path is dropout on each branch, as it is here. It decays
s_out, s_in and the patch projection's scale and shift, and neither t nor those of the norms.
"""

import math

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ...configs.keys import Section, number, one_of, some_of
from ..families import family_of
from ..method import Method
from ..sites import APART, LINEAR, blocks, exit_of, layout, linear_maps, rising
from ..taps import scale_shift_of, uniform

NORMS = ("patch_embed", "norm1", "norm2", "norm")


class Rescale(nn.Module):
    """scale_out * (W (scale_in * x)) + bias: (..., in) -> (..., out), what the rescaling adds to W x.

    ``scale_in`` is (parts, in): each part of the outputs (q, k and v), of ``counts`` channels, reads x scaled in its
    own way. ``linear``, which has W, stays the ViT's.
    """

    def __init__(self, linear: nn.Linear, counts: list[int]):
        super().__init__()
        self.linear = (linear,)  # in a tuple: this tap does not own it
        self.counts, parts = counts, len(counts)
        # Kaiming uniform of a (1, in) and an (out, 1) matrix, as the original code has it: fans in of in and 1.
        self.scale_in = uniform((parts, linear.in_features), math.sqrt(6 / linear.in_features))
        self.scale_out = uniform((linear.out_features,), math.sqrt(6))
        self.bias = uniform((linear.out_features,), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        (linear,) = self.linear
        weights = linear.weight.split(self.counts)
        slices = [F.linear(x * scale, w) for scale, w in zip(self.scale_in.unbind(), weights, strict=True)]
        y = slices[0] if len(slices) == 1 else torch.cat(slices, dim=-1)
        return y * self.scale_out + self.bias


class RLRR(Method):
    """31 D L + 4 D parameters in an ordinary ViT; 2 D L fewer with QKV "fused"."""

    paper = "Dong et al., 2024, arXiv:2403.19067"
    learns = "a rank-one rescaling of every weight, a scale and shift of every norm"
    folds = True
    starts_pretrained = False
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # "separate": q, k and v each scale the tokens they read in their own way, as in the original ViT. "fused": they
        # share one such scale, as in the original Swin.
        cfg.QKV = one_of("separate", ["separate", "fused"])
        # What gets a scale and shift: the patch projection, each block's norms (in ConvNeXt "norm1" is its only one)
        # and "norm", the last. The original Swin leaves the patch projection out.
        cfg.SCALE_SHIFT = some_of(["patch_embed", "norm1", "norm2", "norm"], NORMS, distinct=True)
        # Dropout on what attention and MLP return, in training only: 0 in the first block, this in the last, linearly
        # between. The original chooses 0 to 0.5 per task.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        return cfg

    def attach(self, cfg, vit, tokens):
        self.projection = family_of(vit).projection_of(vit)
        for site, (op, rows) in linear_maps(vit, APART if cfg.QKV == "separate" else LINEAR).items():
            self.beside(site, Rescale(op, [count for _, count in layout(rows, op.out_features)]))
        for site in self._scaled(vit, cfg.SCALE_SHIFT):
            self.after(site, scale_shift_of(vit.get_submodule(site), vit.num_features))
        for site, rate in rising(vit, cfg.DROPOUT).items():
            self.after(exit_of(vit, site), nn.Dropout(rate))

    def decays(self, name, param):
        if name.rsplit(".", 1)[-1] in ("scale_in", "scale_out"):
            return True
        sites = [site for site, _, index in self.wires if name.startswith(f"taps.{index}.")]
        return sites == [self.projection] and not name.endswith("bias")

    @staticmethod
    def _scaled(vit, wanted: list[str]) -> list[str]:
        """The patch projection and norms that ``wanted`` names, as this backbone calls them."""
        family = family_of(vit)
        sites = [family.projection_of(vit)] if "patch_embed" in wanted else []
        for name, block in blocks(vit).items():
            norms = [norm for role in family.norms if role in wanted for norm in family.norms_of(block, role)]
            sites += [f"{name}.{norm}" for norm in norms]
        last = family.final_norm(vit, "fc_norm") if "norm" in wanted else ""
        return [*sites, last] if last else sites
