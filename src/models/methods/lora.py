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
from ..method import DoesNotFit, Method
from ..sites import APART, THIRDS, layout, linear_maps, target_problems, targets

BIASES = ("none", "lora_only", "all")


def scaled(y: Tensor, scale: float) -> Tensor:
    return y if scale == 1 else y * scale  # a GPU would start two kernels for nothing


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
        return self.up(scaled(self.down(self.dropout(x)), self.scale))  # where there are few channels


class LowRankParts(nn.Module):
    """A LowRank of its own for some parts of a fused map, such as q, k and v: (..., in) -> (..., out), elsewhere zero.

    All are computed at once, with the down matrices stacked and the up matrices on a block diagonal.
    """

    def __init__(self, op: nn.Linear, rows: dict[str, slice], rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        counts = [(part, where.stop - where.start) for part, where in rows.items()]
        self.thirds = nn.ModuleDict({part: LowRank(op.in_features, count, rank, alpha) for part, count in counts})
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)  # one for all parts
        self.layout = layout(rows, op.out_features)

    def forward(self, x: Tensor) -> Tensor:
        down = torch.cat([low_rank.down.weight for low_rank in self.thirds.values()])  # (parts * rank, in)
        ups = (self.thirds[part].up.weight if part else down.new_zeros(count, 0) for part, count in self.layout)
        return F.linear(scaled(F.linear(self.dropout(x), down), self.scale), torch.block_diag(*ups))


class LowRankShared(nn.Module):
    """As LowRankParts, with one down matrix for all parts: (..., in) -> (..., out), elsewhere zero."""

    def __init__(self, op: nn.Linear, rows: dict[str, slice], rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(op.in_features, rank, bias=False)
        counts = {part: where.stop - where.start for part, where in rows.items()}
        self.ups = nn.ModuleDict({part: nn.Linear(rank, count, bias=False) for part, count in counts.items()})
        self.layout = layout(rows, op.out_features)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for up in self.ups.values():
            nn.init.zeros_(up.weight)

    def forward(self, x: Tensor) -> Tensor:
        rank = len(self.down.weight)
        ups = (
            self.ups[part].weight if part else self.down.weight.new_zeros(count, rank) for part, count in self.layout
        )
        return F.linear(scaled(self.down(self.dropout(x)), self.scale), torch.cat(list(ups)))


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
        if cfg.SHARE_A and (
            apart := next(
                (site for site, map in linear_maps(vit, set(cfg.TARGETS) & set(THIRDS)).items() if not map.rows), ""
            )
        ):
            raise DoesNotFit(f"SHARE_A needs q, k and v in one linear map, and {apart} is one by itself")
        self.bias = cfg.BIAS
        for site, (op, rows) in linear_maps(vit, cfg.TARGETS).items():
            if rows:
                kind = LowRankShared if cfg.SHARE_A else LowRankParts
                self.beside(site, kind(op, rows, cfg.RANK, alpha, cfg.DROPOUT))
            else:
                self.beside(site, LowRank(op.in_features, op.out_features, cfg.RANK, alpha, cfg.DROPOUT))
        self.adapted = {f"{site}.bias" for site, _, _ in self.wires}

    def trains(self, name, param):
        return name in self.adapted if self.bias == "lora_only" else self.bias == "all" and name.endswith("bias")
