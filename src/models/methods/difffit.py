"""DiffFit: scale each branch, train biases and norms (Xie et al., 2023, arXiv:2304.06648).

The scale sits where the branch's last linear map ends, so that it folds. That is the same as after LayerScale
(DINOv2), where the unifying study (Mai et al., 2025, arXiv:2409.16434) has it: both multiply channel by channel.
"""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...configs.keys import Section, number
from ..method import Method
from ..sites import LAST, block_sites, norm_parameters, require_linear


class Gamma(nn.Module):
    """y * gamma, per channel."""

    def __init__(self, dim: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    def forward(self, y: Tensor) -> Tensor:
        return y * self.gamma


class DiffFit(Method):
    """2 L D scales, every bias and every norm: D (2 + 11 L) + D (2 L + 1) + 2 L D parameters in an ordinary ViT."""

    paper = "Xie et al., 2023, arXiv:2304.06648"
    learns = "a scale on every branch, biases and norms"
    folds = True
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Value of every scale at the start; at 1 training starts at the pre-trained model.
        cfg.START = number(1.0)
        return cfg

    def attach(self, cfg, vit, tokens):
        self.norms = norm_parameters(vit)
        for site, linear in block_sites(vit, LAST.values()).items():
            self.after(site, Gamma(require_linear(linear, site).out_features, cfg.START))

    def trains(self, name, param):
        return name.endswith("bias") or name in self.norms
