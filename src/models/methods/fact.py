"""FacT: one factorised update of all linear maps (Jie & Deng, 2023, arXiv:2212.03145): tensor-train and Tucker form.

Every D x D piece of every weight gets U, a core of its own and V; U and V are shared by all of them and live once, on
the method. q, k, v and proj are one piece each; fc1 makes its hidden channels in pieces of D and fc2 reads them so,
which asks for a hidden width that is a multiple of D (4 D in an ordinary ViT, whose SwiGLU has two such maps fc1).
"""

import math
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ...configs.keys import Section, number, whole
from ..method import DoesNotFit, Method
from ..sites import APART, Map, layout, linear_maps
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


@dataclass(frozen=True)
class Pieces:
    """The D x D pieces of one linear map.

    ``inputs`` and ``outputs`` are how many pieces of D channels it reads, and makes for each of its parts (q, k, v).
    """

    inputs: int
    outputs: dict[str, int]

    @classmethod
    def of(cls, site: str, own: Map, dim: int) -> "Pieces":
        """Raises DoesNotFit unless the map is made of such pieces."""
        parts = {part or "rest": count for part, count in layout(own.rows, own.op.out_features)}
        if not own.rows:
            parts = {site.rpartition(".")[2]: own.op.out_features}
        if wrong := [width for width in (own.op.in_features, *parts.values()) if width % dim]:
            raise DoesNotFit(f"{site}: its {wrong[0]} channels are not a multiple of the {dim} of a token")
        return cls(own.op.in_features // dim, {part: count // dim for part, count in parts.items()})

    @property
    def count(self) -> int:
        return self.inputs * sum(self.outputs.values())

    @property
    def kind(self) -> str:
        """See TuckerCore."""
        if self.inputs > 1:
            return "fc2"
        return "fc1" if len(self.outputs) == 1 and self.count > 1 else "stacked"


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
        pieces = {site: Pieces.of(site, own, tokens.dim) for site, own in linear_maps(vit, APART).items()}
        self.factors = self._factors(tokens.dim, cfg.RANK, sum(own.count for own in pieces.values()))
        first = 0
        for site, own in pieces.items():
            self.beside(site, self._tap(cfg, own, first))
            first += own.count


class FacTTT(FacT):
    """Tensor-train: a core for each weight. 2 rank D + 12 L rank^2 parameters in an ordinary ViT."""

    learns = "one tensor-train update of rank {RANK} to all linear maps"

    def _factors(self, dim, rank, pieces):
        return Factors(dim, rank)

    def _tap(self, cfg, own, first):
        shapes = {name: (outputs * cfg.RANK, own.inputs * cfg.RANK) for name, outputs in own.outputs.items()}
        return TrainCore(self.factors, cfg.SCALE, cfg.DROPOUT, shapes)


class FacTTK(FacT):
    """Tucker: every core is a mixture of the same ones. 2 rank D + 12 L rank + rank^3 parameters in an ordinary ViT."""

    learns = "one Tucker update of rank {RANK} to all linear maps"

    def _factors(self, dim, rank, pieces):
        return TuckerFactors(dim, rank, pieces)

    def _tap(self, cfg, own, first):
        return TuckerCore(self.factors, cfg.SCALE, cfg.DROPOUT, first, own.count, own.kind)
