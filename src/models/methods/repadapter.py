"""RepAdapter: a linear bottleneck before each branch that folds into it (Luo et al., 2023, arXiv:2302.08106)."""

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...configs.keys import Section, number, some_of, whole
from ..method import Method
from ..sites import BRANCHES, branch_words, branches, first_maps
from ..taps import uniform


class GroupedBottleneck(nn.Module):
    """x + scale * up(down(x)): (B, N, D) -> (B, N, D), without any non-linearity.

    ``up`` has ``groups`` groups: the j-th slice of the bottleneck makes the j-th slice of the D channels, so that its
    weight is (D, width / groups). It starts at zero: the tap starts as the identity.
    """

    def __init__(self, dim: int, width: int, groups: int, scale: float, dropout: float):
        super().__init__()
        self.groups, self.scale = groups, scale
        self.down = nn.Linear(dim, width)
        self.weight = uniform((dim, width // groups), 0.0)
        self.bias = uniform((dim,), 0.0)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.down(x)).unflatten(-1, (self.groups, -1))  # (B, N, groups, width / groups)
        weight = self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2)  # (groups, width / groups, D / groups)
        up = (h.unsqueeze(-2) @ weight).flatten(-3) + self.bias
        return x + up * self.scale


class RepAdapter(Method):
    """len(SITES) L (D width + width + D width / groups + D) parameters."""

    paper = "Luo et al., 2023, arXiv:2302.08106"
    learns = "linear bottlenecks of width {WIDTH} before every {branches}"
    folds = True
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Channels of the bottleneck.
        cfg.WIDTH = whole(8, low=1, unit="channels")
        # Groups of the map back up; WIDTH and the ViT's channels must be multiples of it.
        cfg.GROUPS = whole(2, low=1)
        # Branches of every block that get a bottleneck: "attn", "mlp".
        cfg.SITES = some_of(["attn", "mlp"], BRANCHES, filled=True)
        # Factor on the output; the paper chooses it per task among 0.1, 0.5, 1, 5, 10.
        cfg.SCALE = number(1.0)
        # Dropout in the bottleneck, in training only.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        return cfg

    @staticmethod
    def problems(cfg):
        return [f"WIDTH is {cfg.WIDTH}, not a multiple of GROUPS {cfg.GROUPS}"] if cfg.WIDTH % cfg.GROUPS else []

    @classmethod
    def words(cls, cfg):
        return super().words(cfg) | {"branches": branch_words(cfg.SITES)}

    def attach(self, cfg, vit, tokens):
        for site in branches(vit, cfg.SITES):
            # At the first linear maps rather than at the branch, so that it folds: q, k and v, both halves of a SwiGLU.
            firsts = first_maps(vit, site)
            begins, first = next(iter(firsts.items()))
            dim = first.in_features
            if dim % cfg.GROUPS:
                groups = f"MODEL.REPADAPTER.GROUPS is {cfg.GROUPS}"
                raise ValueError(f"{groups}: the {dim} channels of {begins} do not divide")
            tap = GroupedBottleneck(dim, cfg.WIDTH, cfg.GROUPS, cfg.SCALE, cfg.DROPOUT)
            for first in firsts:
                self.before(first, tap)
