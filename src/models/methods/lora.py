"""LoRA: a low-rank update beside a frozen linear map (Hu et al., 2022, arXiv:2106.09685).

timm keeps q, k and v in one linear map, ``attn.qkv``. Targets may name the whole map or its thirds: FreqFiT adapts
q, k and v each with factors of its own, and attn.proj, mlp.fc1 and mlp.fc2. Its code scales by ``alpha // rank``, which
is 0 when alpha < rank; ours is the paper's alpha / rank.
"""

import math

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ..method import Method

THIRDS = ("attn.q", "attn.k", "attn.v")
TARGETS = (*THIRDS, "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class LowRank(nn.Module):
    """(alpha / rank) * up(down(x)): (..., in) -> (..., out). ``up`` starts at zero: training starts pre-trained."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float):
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x) * self.scale)  # scaled where there are few channels


class LowRankThirds(nn.Module):
    """A LowRank of its own for each wanted third of a fused qkv map: (..., D) -> (..., 3 D), zero for the others.

    All are computed at once, with the down matrices stacked and the up matrices on a block diagonal.
    """

    def __init__(self, dim: int, thirds: list[str], rank: int, alpha: float):
        super().__init__()
        self.thirds = nn.ModuleDict({third: LowRank(dim, dim, rank, alpha) for third in "qkv" if third in thirds})
        self.scale = alpha / rank
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        down = torch.cat([low_rank.down.weight for low_rank in self.thirds.values()])  # (thirds * rank, D)
        nothing = down.new_zeros(self.dim, 0)
        up = torch.block_diag(*(self.thirds[t].up.weight if t in self.thirds else nothing for t in "qkv"))
        return F.linear(F.linear(x, down) * self.scale, up)


class LoRA(Method):
    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # Rank of the update; each adapted matrix gains RANK * (inputs + outputs) parameters.
        cfg.RANK = 8
        # The update is scaled by ALPHA / RANK.
        cfg.ALPHA = 8.0
        # Linear maps of every block that get an update: attn.q, attn.k, attn.v or attn.qkv as one; attn.proj, mlp.fc1,
        # mlp.fc2. FreqFiT adapts these six; peft-vit uses [attn.q, attn.v].
        cfg.TARGETS = ["attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2"]
        return cfg

    @staticmethod
    def problems(cfg):
        found = [] if cfg.RANK >= 1 else [f"RANK is {cfg.RANK}; it must be at least 1"]
        if unknown := [str(t) for t in cfg.TARGETS if t not in TARGETS]:
            found.append(f"TARGETS has {', '.join(unknown)}; known: {', '.join(TARGETS)}")
        if len(set(map(str, cfg.TARGETS))) < len(cfg.TARGETS):
            found.append(f"TARGETS names a target twice: {', '.join(map(str, cfg.TARGETS))}")
        if not cfg.TARGETS:
            found.append(f"TARGETS is empty; choose from {', '.join(TARGETS)}")
        if "attn.qkv" in cfg.TARGETS and set(cfg.TARGETS) & set(THIRDS):
            found.append("TARGETS names attn.qkv and a part of it: choose one")
        return found

    def attach(self, cfg, vit, tokens):
        thirds = [t[-1] for t in cfg.TARGETS if t in THIRDS]
        whole = [t for t in cfg.TARGETS if t not in THIRDS]
        for i, block in enumerate(vit.blocks):
            if thirds:
                self.beside(f"blocks.{i}.attn.qkv", LowRankThirds(tokens.dim, thirds, cfg.RANK, cfg.ALPHA))
            for target in whole:
                linear = block.get_submodule(target)
                tap = LowRank(linear.in_features, linear.out_features, cfg.RANK, cfg.ALPHA)
                self.beside(f"blocks.{i}.{target}", tap)
