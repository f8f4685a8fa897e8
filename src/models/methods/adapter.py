"""Adapters: bottleneck MLPs in or beside a block's branches; here Pfeiffer's (Pfeiffer et al., 2021, arXiv:2005.00247).

houlsby.py and adaptformer.py are the same method with other defaults; their keys are the ones below.

VPT's and FreqFiT's code starts all four tensors at zero. Then both matrices have zero gradient for ever and only the
last bias learns; here ``down`` starts small and random, so that the adapter trains. The unifying study (Mai et al.,
2025, arXiv:2409.16434) scales a sequential adapter's branch by LayerScale twice, which with zero adapters is not the
pre-trained model any more; here it is scaled once, after the adapter.
"""

import math

from fvcore.common.config import CfgNode
from timm.layers import QuickGELU
from torch import Tensor, nn

from ...configs.keys import Section, flag, number, one_of, some_of, text, whole
from ..method import Method
from ..sites import (
    BRANCHES,
    branch_of,
    branch_words,
    branches,
    exit_of,
    input_problems,
    inputs,
    last_linear,
    put_beside,
)

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "quick_gelu": QuickGELU}
INITS = ("zero", "lora_kaiming", "lora_xavier", "xavier")


class Bottleneck(nn.Module):
    """scale * up(act(down(x))), plus x itself if ``residual``: (B, N, D) -> (B, N, D).

    ``init`` says where the matrices start; only "xavier" does not start with an output of zero.
    """

    def __init__(self, dim: int, width: int, residual: bool = True, act: str = "gelu", dropout: float = 0.0):
        super().__init__()
        self.residual = residual
        self.scale: nn.Parameter | float = 1.0
        self.down = nn.Linear(dim, width)
        self.up = nn.Linear(width, dim)
        self.act, self.dropout = ACTIVATIONS[act](), nn.Dropout(dropout)

    def start(self, init: str, scale: float, learn_scale: bool) -> "Bottleneck":
        """Give the parameters their first values; returns itself."""
        self.scale = nn.Parameter(self.up.bias.new_full((1,), scale)) if learn_scale else scale
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
        if init == "zero":
            nn.init.normal_(self.down.weight, std=0.02)
        elif init == "lora_kaiming":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        else:
            nn.init.xavier_uniform_(self.down.weight)
        if init == "xavier":
            nn.init.xavier_uniform_(self.up.weight)
            nn.init.normal_(self.down.bias, std=1e-6)
            nn.init.normal_(self.up.bias, std=1e-6)
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.dropout(self.act(self.down(x)))) * self.scale
        return x + y if self.residual else y


class Bottlenecks(Method):
    """What the adapter methods share: len(SITES) L (2 D width + width + D) parameters."""

    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # The bottleneck has D // REDUCTION_FACTOR channels. (VPT spells it REDUCATION_FACTOR; that works too.)
        cfg.REDUCTION_FACTOR = whole(8, low=1)
        # Channels of the bottleneck; 0: as REDUCTION_FACTOR sets them.
        cfg.WIDTH = whole(0, low=0, unit="channels")
        # Branches of every block that get an adapter: "attn", "mlp".
        cfg.SITES = some_of(["mlp"], BRANCHES, filled=True)
        # "sequential" adapts what the branch returns, m + A(m); "parallel" adds a path beside the branch, m + A(input).
        # Both sit before LayerScale (DINOv2) and the residual sum.
        cfg.MODE = one_of("sequential", ["sequential", "parallel"])
        # What a parallel adapter reads: "norm", the normalised tokens that the branch reads, or "residual", the tokens
        # before that norm. One for all SITES, or one for each: "norm,residual".
        cfg.INPUT = text("norm")
        # Activation between down and up: "gelu", "relu", "silu", "quick_gelu".
        cfg.ACTIVATION = one_of("gelu", ACTIVATIONS)
        # Initial (down; up): "zero" (N(0, 0.02^2); 0), "lora_kaiming" (Kaiming uniform, a = sqrt 5; 0), "lora_xavier"
        # (Xavier uniform; 0), "xavier" (both Xavier uniform: does not start at the pre-trained model).
        cfg.INIT = one_of("zero", INITS)
        # Factor on the adapter's output.
        cfg.SCALE = number(1.0)
        # Learn the scale of each adapter, one number that starts at SCALE.
        cfg.LEARN_SCALE = flag(False)
        # Dropout after the activation, in training only.
        cfg.DROPOUT = number(0.0, low=0, below=1)
        return cfg

    @staticmethod
    def problems(cfg):
        if cfg.MODE == "sequential" and "residual" in cfg.INPUT:
            return ["INPUT 'residual' needs MODE 'parallel': a sequential adapter reads what the branch returns"]
        return input_problems(cfg.INPUT, cfg.SITES)

    @classmethod
    def words(cls, cfg):
        width, place = cfg.WIDTH or f"D/{cfg.REDUCTION_FACTOR}", "behind" if cfg.MODE == "sequential" else "beside"
        return super().words(cfg) | {"width": width, "place": place, "branches": branch_words(cfg.SITES)}

    def attach(self, cfg, vit, tokens):
        sequential = cfg.MODE == "sequential"
        for site in branches(vit, cfg.SITES):
            dim = last_linear(vit, site).out_features
            width = cfg.WIDTH or dim // cfg.REDUCTION_FACTOR
            if width == 0:
                raise ValueError(
                    f"MODEL.{type(self).__name__.upper()}.REDUCTION_FACTOR is {cfg.REDUCTION_FACTOR}, more than the "
                    f"{dim} channels: the bottleneck would have none"
                )
            tap = Bottleneck(dim, width, sequential, cfg.ACTIVATION, cfg.DROPOUT)
            tap.start(cfg.INIT, cfg.SCALE, cfg.LEARN_SCALE)
            if sequential:
                self.after(exit_of(vit, site), tap)
            else:
                put_beside(self, vit, site, tap, inputs(cfg.INPUT, cfg.SITES)[branch_of(vit, site)])


class Adapter(Bottlenecks):
    """Pfeiffer's: after the MLP."""

    paper = "Pfeiffer et al., 2021, arXiv:2005.00247"
    learns = "bottlenecks of width {width} {place} every {branches}"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Bottlenecks.defaults()
        # VPT's name of the default place; "Pfeiffer" is its only value.
        cfg.STYLE = one_of("Pfeiffer", ["Pfeiffer"])
        return cfg
