"""Convpass: a bottleneck with a 3x3 convolution beside each branch (Jie & Deng, 2022, arXiv:2207.07039).

Any grid and any prefix. The class token passes the convolution as an image of one pixel, as in the paper's code; so do
register tokens and prompts, which the original code cannot have.
"""

import math

import torch
from fvcore.common.config import CfgNode
from timm.layers import QuickGELU
from torch import Tensor, nn

from ...configs.keys import Section, number, one_of, some_of, text, whole
from ..method import Method
from ..sites import (
    BRANCHES,
    block_of,
    blocks,
    branch_of,
    branch_words,
    branches,
    input_problems,
    inputs,
    put_beside,
)
from ..taps import require_grid


class ConvBypass(nn.Module):
    """scale * up(act(conv(act(down(x))))): (B, skip + rows * cols, D) -> the same; act is QuickGELU.

    The first ``skip`` tokens have no neighbours, so that they see the convolution's centre and bias only. ``up`` starts
    at zero: so does the output.
    """

    def __init__(self, dim: int, width: int, skip: int, grid: tuple[int, int], scale: float, dropout: float):
        super().__init__()
        self.skip, self.grid, self.scale = skip, grid, scale
        self.down = nn.Linear(dim, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.Linear(width, dim)
        self.act, self.dropout = QuickGELU(), nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        for zero in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        require_grid(x, self.skip + math.prod(self.grid))
        h = self.act(self.down(x))
        return self.up(self.dropout(self.act(self.convolve(h)))) * self.scale

    def convolve(self, h: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)"""
        alone, patches = h[:, : self.skip], h[:, self.skip :]
        image = patches.transpose(1, 2).unflatten(2, self.grid)  # (B, width, rows, cols)
        patches = self.conv(image).flatten(2).transpose(1, 2)
        alone = nn.functional.linear(alone, self.conv.weight[:, :, 1, 1], self.conv.bias)
        return torch.cat((alone, patches), dim=1)


class Convpass(Method):
    """len(SITES) L (2 D width + 9 width^2 + 2 width + D) parameters."""

    paper = "Jie & Deng, 2022, arXiv:2207.07039"
    learns = "bottlenecks of width {WIDTH} with a 3x3 convolution beside every {branches}"
    one_grid = "its convolution is for one grid of patches"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Channels of the bottleneck.
        cfg.WIDTH = whole(8, low=1, unit="channels")
        # Branches of every block that get a bottleneck: "attn", "mlp".
        cfg.SITES = some_of(["attn", "mlp"], BRANCHES, filled=True)
        # What the bottleneck reads: "norm", the normalised tokens that the branch reads, or "residual", the tokens
        # before that norm. One for all SITES, or one for each: "norm,residual".
        cfg.INPUT = text("norm")
        # Factor on the output; the paper chooses it per task among 0.01, 0.1, 1, 10, 100.
        cfg.SCALE = number(1.0)
        # Initial convolution: the "identity", or "xavier" uniform.
        cfg.CONV_INIT = one_of("identity", ["identity", "xavier"])
        # Dropout before the last linear map, in training only.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        return cfg

    @staticmethod
    def problems(cfg):
        return input_problems(cfg.INPUT, cfg.SITES)

    @classmethod
    def words(cls, cfg):
        return super().words(cfg) | {"branches": branch_words(cfg.SITES)}

    def attach(self, cfg, vit, tokens):
        grid, names = (tokens.rows, tokens.cols), list(blocks(vit))
        for site in branches(vit, cfg.SITES):
            skip = tokens.prefix + tokens.prompts[names.index(block_of(vit, site))]
            tap = ConvBypass(tokens.dim, cfg.WIDTH, skip, grid, cfg.SCALE, cfg.DROPOUT)
            if cfg.CONV_INIT == "identity":
                nn.init.dirac_(tap.conv.weight)
            else:
                nn.init.xavier_uniform_(tap.conv.weight)
            put_beside(self, vit, site, tap, inputs(cfg.INPUT, cfg.SITES)[branch_of(vit, site)])
