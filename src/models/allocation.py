"""SPT's first stage: where a budget of trained parameters does most (He et al., 2023, arXiv:2303.08566).

A parameter's *sensitivity* is the sum over batches of its squared gradient. Of the most sensitive ones, those that are
dense in a weight are better spent on a module for the whole weight (structured); the others train one by one, as
entries of a sparse update (masked). *Pieces* are the tensors that this chooses from; q, k and v are pieces of their own
though timm keeps them in one.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import simplejson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..utils.io import write_atomic
from .families import family_of
from .families.names import is_inside
from .sites import APART, layout, maps

FORMAT = "vitune-allocation-1"
STEPS = 79  # the sweep's, and the share of a unit that each step adds
STEP = 0.02
UNIT = 1e6


@dataclass(frozen=True)
class Piece:
    """One tensor to choose from: a parameter of the ViT, or the rows of it that make q, k or v."""

    param: str  # the ViT's name
    shape: tuple[int, ...]
    first_row: int
    whole: bool  # whether it is all of the parameter
    linear: bool  # whether it belongs to a linear map

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def of(self, tensor: Tensor) -> Tensor:
        """This piece of a tensor shaped as the ViT's parameter."""
        return tensor[self.first_row : self.first_row + self.shape[0]]


def pieces(vit: nn.Module) -> dict[str, Piece]:
    """All pieces by name, in the order of the ViT's parameters, "blocks.0.attn.q.weight" for a third of attn.qkv.

    They are the weights and biases of linear maps, and all vectors (norms, LayerScale, biases of convolutions)
    between the patch embedding and the head.
    """
    family, found = family_of(vit), {}
    fused = maps(vit, APART)
    for site, module in vit.named_modules():
        if any(is_inside(site, part) for part in (family.patches, *family.readout)):
            continue
        own = {
            name: param
            for name, param in module.named_parameters(recurse=False)
            if isinstance(module, nn.Linear) or param.ndim == 1
        }
        prefix, parent, start = f"{site}." if site else "", site.rpartition(".")[0], 0
        linear, rows = isinstance(module, nn.Linear), fused[site].rows if site in fused else {}
        for part, count in layout(rows, module.out_features) if rows else [("", None)]:
            for name, param in own.items():
                shape = (count or len(param), *param.shape[1:])
                piece = f"{parent}.{part or f'other_{start}'}.{name}" if rows else prefix + name
                found[piece] = Piece(prefix + name, shape, start, not rows, linear)
            start += count or 0
    return found


@dataclass(frozen=True)
class Rules:
    """How a budget is spent.

    ``kind`` is what a structured matrix gets: "lora" or "adapter" of width ``rank``. A matrix is structured from
    cost / ``alpha`` sensitive entries on, a vector trains whole from length / ``beta`` on (never without
    ``structured_vector``). With ``structured_only`` nothing is masked. ``always`` is what trains in any case.
    """

    kind: str
    rank: int
    alpha: float
    beta: float
    structured_vector: bool
    structured_only: bool
    always: int  # the class token

    def cost(self, piece: Piece) -> int:
        """Parameters of a structured piece as the paper's code counts them: every adapter sequential, with biases."""
        if len(piece.shape) == 1:
            return piece.shape[0]
        outputs, inputs = piece.shape
        if self.kind == "lora":
            return self.rank * (inputs + outputs)
        return 2 * self.rank * outputs + self.rank + outputs

    def least(self, piece: Piece) -> float:
        """How many of a piece's entries must be sensitive for it to be structured."""
        if len(piece.shape) == 1:
            return piece.shape[0] / self.beta if self.structured_vector else math.inf
        return self.cost(piece) / self.alpha


@dataclass(frozen=True)
class Allocation:
    """What a budget is spent on.

    ``structured`` (k,): positions in ``pieces`` of the matrices that get a module and the vectors that train whole.
    ``masked`` (n,): positions of single entries in all pieces laid end to end, ascending.
    ``fits`` (2,): how many pieces and entries the ViT has that this was made for. All are integers.
    ``about``: budget, rules, counts and where it comes from, for people and for the record.
    """

    structured: Tensor
    masked: Tensor
    fits: Tensor
    about: dict = field(default_factory=dict)

    def names(self, vit: nn.Module) -> list[str]:
        """The structured pieces' names."""
        names = list(pieces(vit))
        return [names[i] for i in self.structured]

    def masks(self, vit: nn.Module) -> dict[str, Tensor]:
        """Positions of the masked entries within each flattened piece that has any."""
        found, known = {}, pieces(vit)
        starts, masked = _starts(known.values()), self.masked.long()
        owner = torch.searchsorted(starts, masked, right=True) - 1
        for i in owner.unique():
            found[list(known)[i]] = masked[owner == i] - starts[i]
        return found

    def check(self, vit: nn.Module) -> None:
        """Raises ValueError unless this was made for a ViT of this shape."""
        if self.fits.tolist() != _fits(vit):
            raise ValueError(
                "the allocation was made for another backbone: {:,} tensors with {:,} entries, where this one has "
                "{:,} with {:,}. Create one for this backbone".format(*self.fits.tolist(), *_fits(vit))
            )

    def save(self, path: Path) -> None:
        tensors = {"structured": self.structured, "masked": self.masked, "fits": self.fits}
        metadata = {"format": FORMAT, "about": simplejson.dumps(self.about)}
        write_atomic(path, lambda temporary: temporary.write_bytes(save(tensors, metadata)))

    @staticmethod
    def load(path: Path) -> "Allocation":
        """From ``save``'s file, or from a run's tuned.safetensors, which has its allocation inside.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is broken, or has no allocation.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing: make it with vitune sensitivity")
        try:
            with safe_open(path, framework="pt") as file:
                about = simplejson.loads((file.metadata() or {}).get("about", "{}"))
                inside = {name.rsplit(".", 1)[-1]: name for name in file.keys()}  # noqa: SIM118 - the file is not a dict
                tensors = [file.get_tensor(inside[name]) for name in ("structured", "masked", "fits")]
        except KeyError as error:
            raise ValueError(f"{path} has no allocation: make one with vitune sensitivity") from error
        except (SafetensorError, ValueError, RecursionError, OSError) as error:
            raise ValueError(f"{path} is broken, or not a safetensors file: {error}") from error
        if wrong := _misshapen(*tensors) or ("" if isinstance(about, dict) else "its metadata are not settings"):
            raise ValueError(f"{path} is broken: {wrong}. Create it again with vitune sensitivity")
        return Allocation(*tensors, about)


def _misshapen(structured: Tensor, masked: Tensor, fits: Tensor) -> str:
    """What is wrong with an allocation's tensors; "" where nothing is."""
    tensors = {"structured": structured, "masked": masked, "fits": fits}
    for name, tensor in tensors.items():
        if tensor.ndim != 1 or tensor.dtype not in (torch.int32, torch.int64):
            return f"{name} is {tuple(tensor.shape)} of {tensor.dtype}, not a list of positions"
    if len(fits) != 2:
        return f"fits has {len(fits)} numbers, not 2"
    for name, count in (("structured", fits[0]), ("masked", fits[1])):
        found = tensors[name].long()
        if len(found) and (found[0] < 0 or found[-1] >= count or not (found.diff() > 0).all()):
            return f"{name} are not ascending positions below {int(count)}"
    return ""


def _fits(vit: nn.Module) -> list[int]:
    known = pieces(vit).values()
    return [len(known), sum(piece.numel for piece in known)]


def _starts(known: Iterable[Piece]) -> Tensor:
    """Where each piece starts when all are laid end to end."""
    return torch.tensor([0, *(piece.numel for piece in known)]).cumsum(0)[:-1]


def unit_of(budget: float) -> float:
    """The paper sweeps steps of 2 % of a million for budgets of 0.05 to 1 million; others are their own unit."""
    return UNIT if 0.05 * UNIT <= budget <= UNIT else budget


def allocate(
    vit: nn.Module, sensitivity: dict[str, Tensor], rules: Rules, budget: float, unit: float = 0.0
) -> Allocation:
    """Spend about ``budget`` parameters where ``sensitivity`` (of every piece, by name) is highest.

    For 1, 2, ... 79 steps the most sensitive entries, 2 % of ``unit`` more each time, are looked at and spent by the
    rules; the number of steps whose total comes nearest to the budget wins, and of equals the larger one.

    Raises:
        ValueError: no step comes nearer to the budget than spending nothing.
    """
    unit = unit or unit_of(budget)
    pieces_of = pieces(vit)
    names, known = list(pieces_of), list(pieces_of.values())
    flat = torch.cat([sensitivity[name].flatten() for name in names])
    least = torch.tensor([rules.least(piece) for piece in known], dtype=torch.float64)
    cost = torch.tensor([rules.cost(piece) for piece in known])
    taus = [min(len(flat), math.ceil(i * STEP * unit)) for i in range(1, STEPS + 1)]
    order = flat.topk(taus[-1]).indices.cpu()  # the most sensitive first
    owner = torch.searchsorted(_starts(known), order, right=True) - 1

    best, counts, done = None, torch.zeros(len(known), dtype=torch.int64), 0
    for step, tau in enumerate(taus, 1):
        counts = counts + torch.bincount(owner[done:tau], minlength=len(known))
        done = tau
        structured = counts >= least
        masked = 0 if rules.structured_only else int(counts[~structured].sum())
        spent = int(cost[structured].sum())
        total = masked + spent + rules.always
        if abs(total - budget) <= (abs(best["total"] - budget) if best else budget):
            best = {"step": step, "tau": tau, "masked": masked, "structured": spent, "total": total}
            chosen, sensitive = structured, counts
    if best is None:
        raise ValueError(
            f"no allocation is closer to {budget:,.0f} parameters than an empty one: choose a larger BUDGET, a "
            "smaller RANK, or single entries too (STRUCTURED_ONLY False)"
        )

    def is_matrix(name: str) -> bool:
        return len(pieces_of[name].shape) == 2

    keep = ~chosen[owner[: best["tau"]]] & (not rules.structured_only)
    masked = order[: best["tau"]][keep].sort().values
    about = {
        "budget": budget,
        "unit": unit,
        "rules": asdict(rules),
        **best,
        "modules": [name for name, spends in zip(names, chosen, strict=True) if spends and is_matrix(name)],
        "vectors": [name for name, spends in zip(names, chosen, strict=True) if spends and not is_matrix(name)],
        "sensitive": dict(zip(names, sensitive.tolist(), strict=True)),
        "matrices": [name for name in names if is_matrix(name)],
    }
    fits = torch.tensor(_fits(vit))
    small = torch.int32 if fits[1] < 2**31 else torch.int64
    return Allocation(chosen.nonzero().flatten(), masked.to(small), fits, about)
