"""LoRA: a low-rank update beside a frozen linear map (Hu et al., 2022, arXiv:2106.09685).

timm keeps q, k and v in one linear map, ``attn.qkv``. Targets may name the whole map or its thirds: FreqFiT adapts
q, k and v each with factors of its own, and attn.proj, mlp.fc1 and mlp.fc2. Its code scales by ``alpha // rank``, which
is 0 when alpha < rank; ours is the paper's alpha / rank. The unifying study (Mai et al., 2025, arXiv:2409.16434) adapts
attn.qkv as a whole and does not scale (TARGETS [attn.qkv], ALPHA 0); its code starts both factors at random by mistake.
"""

import math

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ...configs.keys import Section, flag, number, one_of, whole
from ..method import Method
from ..sites import APART, THIRDS, block_sites, require_linear, target_problems, targets

BIASES = ("none", "lora_only", "all")


class LowRank(nn.Module):
    """(alpha / rank) * up(down(x)): (..., in) -> (..., out). ``up`` starts at zero: training starts pre-trained."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(self.dropout(x)) * self.scale)  # scaled where there are few channels


class LowRankThirds(nn.Module):
    """A LowRank of its own for each wanted third of a fused qkv map: (..., D) -> (..., 3 D), zero for the others.

    All are computed at once, with the down matrices stacked and the up matrices on a block diagonal.
    """

    def __init__(self, dim: int, thirds: list[str], rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        self.thirds = nn.ModuleDict({third: LowRank(dim, dim, rank, alpha) for third in "qkv" if third in thirds})
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)  # one for all thirds
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        down = torch.cat([low_rank.down.weight for low_rank in self.thirds.values()])  # (thirds * rank, D)
        nothing = down.new_zeros(self.dim, 0)
        up = torch.block_diag(*(self.thirds[t].up.weight if t in self.thirds else nothing for t in "qkv"))
        return F.linear(F.linear(self.dropout(x), down) * self.scale, up)


class LowRankShared(nn.Module):
    """As LowRankThirds, with one down matrix for all wanted thirds: (..., D) -> (..., 3 D), zero for the others."""

    def __init__(self, dim: int, thirds: list[str], rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(dim, rank, bias=False)
        self.ups = nn.ModuleDict({third: nn.Linear(rank, dim, bias=False) for third in "qkv" if third in thirds})
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for up in self.ups.values():
            nn.init.zeros_(up.weight)

    def forward(self, x: Tensor) -> Tensor:
        nothing = torch.zeros_like(self.down.weight).T
        up = torch.cat([self.ups[third].weight if third in self.ups else nothing for third in "qkv"])  # (3 D, rank)
        return F.linear(self.down(self.dropout(x)) * self.scale, up)


class LoRA(Method):
    paper = "Hu et al., 2022, arXiv:2106.09685"
    learns = "updates of rank {RANK} to {TARGETS}"
    folds = True
    adamw_lr = 0.002
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Rank of the update; each adapted matrix gains RANK * (inputs + outputs) parameters.
        cfg.RANK = whole(8, low=1)
        # The update is scaled by ALPHA / RANK; 0: it is not scaled, whatever the rank.
        cfg.ALPHA = number(8.0)
        # Linear maps of every block that get an update: attn.q, attn.k, attn.v or attn.qkv as one; attn.proj, mlp.fc1,
        # mlp.fc2. FreqFiT adapts these six; peft-vit uses [attn.q, attn.v], the unifying study [attn.qkv].
        cfg.TARGETS = targets(APART)
        # One down matrix (the paper's A) for those of attn.q, attn.k and attn.v that are targets, instead of one each.
        cfg.SHARE_A = flag(False)
        # Dropout on what the down matrix reads, in training only.
        cfg.DROPOUT = number(0.0, low=0, below=1)
        # Biases of the ViT that train too: "none", "lora_only" (of the adapted linear maps) or "all".
        cfg.BIAS = one_of("none", BIASES)
        return cfg

    @staticmethod
    def problems(cfg):
        problems = target_problems(cfg.TARGETS)
        if cfg.SHARE_A and not set(cfg.TARGETS) & set(THIRDS):
            problems.append("SHARE_A needs attn.q, attn.k or attn.v in TARGETS; attn.qkv has one A anyway")
        return problems

    def attach(self, cfg, vit, tokens):
        alpha = cfg.ALPHA or cfg.RANK
        self.bias = cfg.BIAS
        thirds = [target[-1] for target in cfg.TARGETS if target in THIRDS]
        whole = [target for target in cfg.TARGETS if target not in THIRDS]
        for site, op in block_sites(vit, ["attn.qkv"] * bool(thirds) + whole).items():
            require_linear(op, site)
            if thirds and site.endswith("attn.qkv"):
                kind = LowRankShared if cfg.SHARE_A else LowRankThirds
                self.beside(site, kind(op.in_features, thirds, cfg.RANK, alpha, cfg.DROPOUT))
            else:
                self.beside(site, LowRank(op.in_features, op.out_features, cfg.RANK, alpha, cfg.DROPOUT))
        self.adapted = {f"{site}.bias" for site, _, _ in self.wires}

    def trains(self, name, param):
        return name in self.adapted if self.bias == "lora_only" else self.bias == "all" and name.endswith("bias")
