"""FacT: one factorised update of all linear maps (Jie & Deng, 2023, arXiv:2212.03145): tensor-train and Tucker form.

Every D x D piece of every weight gets U, a core of its own and V; U and V are shared by all of them and live once, on
the method. q, k, v and proj are one piece each; fc1 makes its hidden channels in pieces of D and fc2 reads them so,
which asks for a hidden width that is a multiple of D (4 D in an ordinary ViT).
"""

import math

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ...configs.keys import Section, number, whole
from ..method import DoesNotFit, Method
from ..sites import LINEAR, block_sites
from ..taps import uniform


class Factors(nn.Module):
    """U (rank, D), which every update begins with, and V (D, rank), which every update ends with.

    V starts at zero: training starts at the pre-trained model.
    """

    def __init__(self, dim: int, rank: int):
        super().__init__()
        self.u = uniform((rank, dim), 1 / math.sqrt(dim))
        self.v = uniform((dim, rank), 0.0)


class Factored(nn.Module):
    """scale * V core U x, piece by piece: (..., in * D) -> (..., out * D).

    The core is (out * rank, in * rank): U takes each of the ``in`` pieces of D channels to ``rank``, and V each of the
    ``out`` pieces of ``rank`` back to D. ``factors`` belongs to the method.
    """

    def __init__(self, factors: Factors, scale: float, dropout: float):
        super().__init__()
        self.factors = (factors,)  # in a tuple: this tap does not own it
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def core(self) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        (factors,) = self.factors
        rank, dim = factors.u.shape
        h = F.linear(x.unflatten(-1, (-1, dim)), factors.u).flatten(-2)
        h = self.dropout(F.linear(h, self.core())) * self.scale
        return F.linear(h.unflatten(-1, (-1, rank)), factors.v).flatten(-2)


class TrainCore(Factored):
    """The core is learned as it is, one parameter for each named weight; those of several are stacked (q, k, v)."""

    def __init__(self, factors: Factors, scale: float, dropout: float, shapes: dict[str, tuple[int, int]]):
        super().__init__(factors, scale, dropout)
        self.names = list(shapes)  # in order: a ParameterDict sorts its own
        # As nn.Linear starts.
        self.cores = nn.ParameterDict({name: uniform(size, 1 / math.sqrt(size[1])) for name, size in shapes.items()})

    def core(self) -> Tensor:
        return torch.cat([self.cores[name] for name in self.names])


class TuckerFactors(Factors):
    """U and V, and P (rank, pieces), which for every piece weighs the slices of C (rank, rank, rank)."""

    def __init__(self, dim: int, rank: int, pieces: int):
        super().__init__(dim, rank)
        self.p = nn.Parameter(torch.empty(rank, pieces))
        self.c = nn.Parameter(torch.empty(rank, rank, rank))
        nn.init.xavier_uniform_(self.p)
        nn.init.xavier_uniform_(self.c)


class TuckerCore(Factored):
    """Core of the pieces ``first`` to ``first + count``: M_j[a, b] = sum_k C[a, b, k] P[k, j].

    ``kind`` "stacked": the pieces below each other, U's side last (q, k, v, proj). "fc1" and "fc2": as the paper's code
    has it, M[a, b, j] read as a matrix of ``rank`` rows whose column is b * count + j. The piece of D channels that a
    column serves is column // rank, so that every piece of the hidden layer mixes all of its M_j.
    """

    def __init__(self, factors: TuckerFactors, scale: float, dropout: float, first: int, count: int, kind: str):
        super().__init__(factors, scale, dropout)
        self.first, self.count, self.kind = first, count, kind

    def core(self) -> Tensor:
        (factors,) = self.factors
        pieces = factors.c @ factors.p[:, self.first : self.first + self.count]  # (rank, rank, count)
        if self.kind == "stacked":
            return pieces.permute(2, 1, 0).flatten(0, 1)
        wide = pieces.flatten(1)  # (rank, rank * count)
        return wide.T if self.kind == "fc1" else wide


class FacT(Method):
    """What both forms share."""

    paper = "Jie & Deng, 2023, arXiv:2212.03145"
    folds = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Rank of the factors.
        cfg.RANK = whole(16, low=1)
        # Factor on the update; the paper chooses it per task among 0.01, 0.1, 1, 10, 100.
        cfg.SCALE = number(1.0)
        # Dropout between core and V, in training only.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        return cfg

    def attach(self, cfg, vit, tokens):
        self.hidden = self._hidden_pieces(vit, tokens.dim)
        self.factors = self._factors(tokens.dim, cfg.RANK, len(vit.blocks))
        for i in range(len(vit.blocks)):
            for op in LINEAR:
                self.beside(f"blocks.{i}.{op}", self._tap(cfg, i, op))

    def _hidden_pieces(self, vit, dim: int) -> int:
        """How many times D the MLP is wide."""
        linears = block_sites(vit, LINEAR)
        wide = linears["blocks.0.mlp.fc2"].in_features
        shapes = dict(zip(LINEAR, ((dim, 3 * dim), (dim, dim), (dim, wide), (wide, dim)), strict=True))
        for site, linear in linears.items():
            _, _, op = site.split(".", 2)
            shape = (linear.in_features, linear.out_features)
            if shape != shapes.get(op):
                raise DoesNotFit(
                    f"{site} maps {shape[0]} to {shape[1]} channels, and FacT knows "
                    f"{', '.join(f'{op} ({a} to {b})' for op, (a, b) in shapes.items())}"
                )
        if wide % dim:
            raise DoesNotFit(f"blocks.0.mlp: its {wide} channels are not a multiple of {dim}")
        return wide // dim


class FacTTT(FacT):
    """Tensor-train: a core for each weight. 2 rank D + 12 L rank^2 parameters in an ordinary ViT."""

    learns = "one tensor-train update of rank {RANK} to all linear maps"

    def _factors(self, dim, rank, depth):
        return Factors(dim, rank)

    def _tap(self, cfg, i, op):
        rank, wide = cfg.RANK, self.hidden * cfg.RANK
        shapes = {
            "attn.qkv": {"q": (rank, rank), "k": (rank, rank), "v": (rank, rank)},
            "attn.proj": {"proj": (rank, rank)},
            "mlp.fc1": {"fc1": (wide, rank)},
            "mlp.fc2": {"fc2": (rank, wide)},
        }
        return TrainCore(self.factors, cfg.SCALE, cfg.DROPOUT, shapes[op])


class FacTTK(FacT):
    """Tucker: every core is a mixture of the same ones. 2 rank D + 12 L rank + rank^3 parameters in an ordinary ViT."""

    learns = "one Tucker update of rank {RANK} to all linear maps"

    def _factors(self, dim, rank, depth):
        return TuckerFactors(dim, rank, depth * (4 + 2 * self.hidden))

    def _tap(self, cfg, i, op):
        hidden, start = self.hidden, i * (4 + 2 * self.hidden)
        first, count, kind = {
            "attn.qkv": (0, 3, "stacked"),
            "attn.proj": (3, 1, "stacked"),
            "mlp.fc1": (4, hidden, "fc1"),
            "mlp.fc2": (4 + hidden, hidden, "fc2"),
        }[op]
        return TuckerCore(self.factors, cfg.SCALE, cfg.DROPOUT, start + first, count, kind)
