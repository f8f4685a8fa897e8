"""SPT: sensitivity-aware tuning (He et al., 2023, arXiv:2303.08566): a budget spent where the task needs it.

What gets a low-rank module (spt_lora) or an adapter (spt_adapter), and which single entries of which weights train, is
an allocation (allocation.py), made from the task's gradients by ``vitune sensitivity``, or by a run that
has none.

As in the original code neither vectors, single entries nor the class token decay (SOLVER.DECAY auto).

Departures from the original code. Its model-wide initialisation makes the up-projections random; here they start at
zero, at the pre-trained model. It builds an nnz x nnz matrix for the gradient of a sparse update; here nothing is
larger than the weight. It silently drops masked entries of norms; so does this, and ``dropped`` counts them.
"""

import torch
from fvcore.common.config import CfgNode
from timm.layers import DropPath
from torch import Tensor, nn

from ...configs.keys import Section, flag, location, number, one_of, whole
from ..allocation import Allocation, Piece, Rules, pieces
from ..families import family_of
from ..method import THIS_FILE, Method
from ..sites import LINEAR, linear_maps
from .sparse import SparseUpdate

MODES = ("parallel", "sequential")


class Delta(nn.Module):
    """drop_path(up(act(down(dropout(x))))), plus x itself if ``residual``: (..., in) -> (..., out).

    ``kind`` "lora": no activation, a bias on ``up`` at most; "adapter": GELU, biases on both. ``up`` starts at zero.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, kind: str, bias: bool, drop_path: float, dropout: float):
        super().__init__()
        self.residual = False
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)
        self.down = nn.Linear(inputs, rank, bias=bias and kind == "adapter")
        self.act = nn.GELU() if kind == "adapter" else nn.Identity()
        self.up = nn.Linear(rank, outputs, bias=bias)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path(self.up(self.act(self.down(self.dropout(x)))))
        return x + y if self.residual else y


class PartsBeside(nn.Module):
    """A Delta of its own for some parts of a fused map, such as q: (..., in) -> (..., out), zero for the others.

    ``layout``: all parts in order, and their channels.
    """

    def __init__(self, parts: dict[str, Delta], layout: list[tuple[str, int]], dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)  # one for all parts
        self.parts, self.layout = nn.ModuleDict(parts), layout

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        outputs = {name: part(x) for name, part in self.parts.items()}
        some = next(iter(outputs.values()))
        pieces = (
            outputs[name] if name in outputs else some.new_zeros(*some.shape[:-1], count) for name, count in self.layout
        )
        return torch.cat(list(pieces), dim=-1)


class PartsAfter(nn.Module):
    """A residual Delta after some parts of a fused map: (..., out) -> (..., out)."""

    def __init__(self, parts: dict[str, Delta], layout: list[tuple[str, int]]):
        super().__init__()
        self.parts, self.layout = nn.ModuleDict(parts), layout

    def forward(self, y: Tensor) -> Tensor:
        pieces = zip(self.layout, y.split([count for _, count in self.layout], dim=-1), strict=True)
        return torch.cat([self.parts[name](y) if name in self.parts else y for (name, _), y in pieces], dim=-1)


class SPT(Method):
    """What both forms share. Trains what the allocation names, and the class token."""

    paper = "He et al., 2023, arXiv:2303.08566"
    attaches_without_files = False
    for_any_backbone = True
    kind: str

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # The file of vitune sensitivity. Empty: a run makes it from its training images, in its folder.
        cfg.ALLOCATION = location("")
        # What may be trained, in millions of parameters; the paper's scripts try 0.2, 0.4, 0.6, 0.8 and 1.
        cfg.BUDGET = number(0.4, above=0, unit="million parameters")
        # A matrix gets a module when one of its sensitive entries costs less than ALPHA of the module's parameters.
        cfg.ALPHA = number(10.0, above=0)
        # A vector trains whole when at least every BETA-th of its entries is sensitive.
        cfg.BETA = number(5.0, above=0)
        # Whether vectors may train whole.
        cfg.STRUCTURED_VECTOR = flag(True)
        # Modules and whole vectors only, no single entries of weights.
        cfg.STRUCTURED_ONLY = flag(False)
        # Sensitivities are summed over this many batches, in the order of the files.
        cfg.NUM_BATCHES = whole(16, low=1, unit="batches")
        # Images of each batch over which sensitivities are summed.
        cfg.BATCH_SIZE = whole(32, low=1, unit="images")
        # Rank of the modules.
        cfg.RANK = whole(8, low=1)
        # "parallel": a module reads what the linear map reads; "sequential": what it returns (attn.proj's: what it
        # reads, as in the original code).
        cfg.MODE = one_of("parallel", MODES)
        # Biases in the modules: of an adapter both, of LoRA the last.
        cfg.BIAS = flag(False)
        # Dropout on what a module reads (attn.proj's: none), in training only.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        # Probability that a module's output is left out for an image, in training only.
        cfg.DROP_PATH = number(0.1, low=0, below=1)
        # Drop-path of the last block's branches, rising from 0, in training only; SOLVER.DROP_PATH comes before it.
        cfg.VIT_DROP_PATH = number(0.1, low=0, below=1)
        return cfg

    @classmethod
    def budget(cls, cfg):
        return 1e6 * cfg.BUDGET

    @classmethod
    def rules(cls, cfg: CfgNode, vit: nn.Module) -> Rules:
        """How a budget is spent according to this method's keys."""
        token = family_of(vit).class_token_of(vit)
        return Rules(
            cls.kind, cfg.RANK, cfg.ALPHA, cfg.BETA, cfg.STRUCTURED_VECTOR, cfg.STRUCTURED_ONLY,
            token.numel() if token is not None else 0,
        )  # fmt: skip

    @classmethod
    def require_parts(cls, cfg, vit, tokens):
        """Checks no allocation: a run makes one from its data."""
        linear_maps(vit, LINEAR)
        pieces(vit)

    def attach(self, cfg, vit, tokens):
        self.require_parts(cfg, vit, tokens)
        if not cfg.ALLOCATION:
            raise ValueError(
                f"spt_{self.kind} needs an allocation: vitune sensitivity makes one for a task, for "
                f"MODEL.SPT_{self.kind.upper()}.ALLOCATION (a run by train.py or run.sh makes its own)"
            )
        allocation = Allocation.load(cfg.ALLOCATION)
        allocation.check(vit)
        for name in ("structured", "masked", "fits"):
            self.register_buffer(name, getattr(allocation, name).clone())
        self.without_files = {"ALLOCATION": THIS_FILE}
        self.register_load_state_dict_pre_hook(_same_allocation)

        self.token = family_of(vit).class_token
        known, chosen, masks = pieces(vit), allocation.names(vit), allocation.masks(vit)
        self.whole = {known[name].param for name in chosen if len(known[name].shape) == 1 and known[name].whole}
        self.dropped = sum(len(index) for name, index in masks.items() if not known[name].linear)
        sites = {piece.param.rsplit(".", 1)[0]: [] for piece in known.values() if piece.linear}
        for name, piece in known.items():
            if piece.linear:
                sites[piece.param.rsplit(".", 1)[0]].append(name)
        for site, names in sites.items():
            self._move_entries(vit, site, {n: known[n] for n in names}, set(chosen), masks)
            layout = [(n.split(".")[-2], known[n].shape[0]) for n in names if len(known[n].shape) == 2]
            self._add_modules(
                cfg, site, {n: known[n] for n in names if n in chosen and len(known[n].shape) == 2}, layout
            )

    def _move_entries(self, vit, site: str, own: dict[str, Piece], chosen: set[str], masks: dict[str, Tensor]):
        """Train single entries of the linear map at ``site``, and the thirds of its bias that train whole."""
        index = {"weight": [], "bias": []}
        for name, piece in own.items():
            start = piece.first_row * (piece.numel // piece.shape[0])
            kind = piece.param.rsplit(".", 1)[1]
            if name in chosen and kind == "bias" and not piece.whole:
                index[kind].append(torch.arange(start, start + piece.numel))
            elif name in masks:
                index[kind].append(start + masks[name])
        if index["weight"] or index["bias"]:
            nothing = [torch.empty(0, dtype=torch.int64)]
            both = (torch.cat(index[kind] or nothing) for kind in ("weight", "bias"))
            self.instead(site, SparseUpdate(vit.get_submodule(site), *both))

    def _add_modules(self, cfg, site: str, own: dict[str, Piece], layout: list[tuple[str, int]]):
        """Put modules at ``site`` for the weights ``own``: one, or one for each of q, k and v."""
        sequential = cfg.MODE == "sequential" and not site.endswith("attn.proj")  # as the original code has it
        dropout = 0.0 if site.endswith("attn.proj") else cfg.DROPOUT
        thirds = {name.split(".")[-2]: piece for name, piece in own.items() if not piece.whole}
        within = 0.0 if thirds and not sequential else dropout
        parts = {}
        for name, piece in own.items():
            outputs, inputs = piece.shape[0], piece.shape[0] if sequential else piece.shape[1]
            delta = Delta(inputs, outputs, cfg.RANK, self.kind, cfg.BIAS, cfg.DROP_PATH, within)
            delta.residual = sequential
            parts[name.split(".")[-2]] = delta
        if thirds and sequential:
            self.after(site, PartsAfter(parts, layout))
        elif thirds:
            self.beside(site, PartsBeside(parts, layout, dropout))
        elif parts:
            (part,) = parts.values()
            put = self.after if sequential else self.beside
            put(site, part)

    def trains(self, name, param):
        return name in self.whole or name == self.token

    @staticmethod
    def drop_path(cfg):
        return cfg.VIT_DROP_PATH

    def decays(self, name, param):
        return param.ndim > 1 and name != self.token


def _same_allocation(method: SPT, state, prefix, *_):
    """Saved values fit only the allocation that they were trained with."""
    for name in ("structured", "masked", "fits"):
        if prefix + name in state and not torch.equal(
            state[prefix + name].to(method.fits.device), getattr(method, name)
        ):
            raise ValueError(
                f"the saved values belong to another allocation than that of MODEL.SPT_{method.kind.upper()}"
            )


class SPTLoRA(SPT):
    """Low-rank modules: RANK (in + out) parameters each."""

    kind = "lora"
    learns = "updates of rank {RANK} and single weights where the task is sensitive"
    folds = True


class SPTAdapter(SPT):
    """Adapters: RANK (in + out) parameters each, and RANK + out biases."""

    kind = "adapter"
    learns = "adapters of width {RANK} and single weights where the task is sensitive"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = SPT.defaults()
        # The original's adapters are sequential.
        cfg.MODE = "sequential"
        # The original's adapters have biases.
        cfg.BIAS = True
        return cfg
