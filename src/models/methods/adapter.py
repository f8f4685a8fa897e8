"""Pfeiffer adapter: a bottleneck MLP on the feed-forward output (Pfeiffer et al., 2021, arXiv:2005.00247).

VPT's and FreqFiT's code starts all four tensors at zero. Then both matrices have zero gradient for ever and only the
last bias learns; here ``down`` starts small and random, so that the adapter trains.
"""

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..method import Method


class Bottleneck(nn.Module):
    """m + up(gelu(down(m))): (B, N, D) -> (B, N, D); ``up`` starts at zero, so it starts as the identity."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.up = nn.Linear(width, dim)
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, m: Tensor) -> Tensor:
        return m + self.up(nn.functional.gelu(self.down(m)))


class Adapter(Method):
    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # The bottleneck has D // REDUCTION_FACTOR channels. (VPT spells it REDUCATION_FACTOR; that works too.)
        cfg.REDUCTION_FACTOR = 8
        # Where it sits; "Pfeiffer": after the MLP of every block, before the residual sum.
        cfg.STYLE = "Pfeiffer"
        return cfg

    @staticmethod
    def problems(cfg):
        found = [] if cfg.STYLE == "Pfeiffer" else [f"STYLE is {cfg.STYLE!r}; known: 'Pfeiffer'"]
        if cfg.REDUCTION_FACTOR < 1:
            found.append(f"REDUCTION_FACTOR is {cfg.REDUCTION_FACTOR}; it must be at least 1")
        return found

    def attach(self, cfg, vit, tokens):
        width = tokens.dim // cfg.REDUCTION_FACTOR
        if width == 0:
            raise ValueError(
                f"MODEL.ADAPTER.REDUCTION_FACTOR is {cfg.REDUCTION_FACTOR}, more than the {tokens.dim} channels: "
                "the bottleneck would have none"
            )
        for i in range(len(vit.blocks)):
            self.after(f"blocks.{i}.mlp", Bottleneck(tokens.dim, width))
