"""Plans what every block keeps for its backward pass, by trying it on shapes alone: see models/recompute.py.

``MODEL.RECOMPUTE auto`` aims at ``SHARE`` of what full fine-tuning keeps in a block. Of the sets of products that a
block may keep, the plan has the one that reaches it with the least work done again; if none does, the one that keeps
least. Which those are differs between methods: a frozen block needs little for its backward pass already, one whose
outputs are all scaled needs every one of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, combinations
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

from ..configs.facts import image_size
from ..models.families import UNKNOWN, family_of
from ..models.families.names import is_inside
from ..models.memo import Memo
from ..models.recompute import Plan, Product, recompute
from ..models.sites import blocks
from ..models.vit_models import TunedViT
from ..utils import distributed
from .memory import Live, shadow_of
from .precision import TYPES, resolve_amp
from .products import Watching

SHARE = 0.53
TINY = 0.01  # of the bytes of all products: kept without asking
MOST, TRIES = 12, 4
FEW = 64  # operations for a number: computed again without asking


def set_recompute(cfg: CfgNode, model: TunedViT, device: torch.device, memo: Memo | None = None) -> None:
    """Do what MODEL.RECOMPUTE says; before the model is sharded or compiled.

    Args:
        memo: where the plan is kept for the next model of this form.
    """
    level = level_of(cfg.MODEL)
    if family_of(model.vit) is UNKNOWN and level == "blocks":
        model.vit.set_grad_checkpointing()  # timm knows its blocks
        return
    images = max(2, cfg.DATA.BATCH_SIZE // (distributed.count() * cfg.SOLVER.ACCUMULATE))
    dtype = TYPES.get(resolve_amp(cfg.SOLVER.AMP, device))
    make = partial(plan_of, model, level, image_size(cfg), images, device, dtype)
    recompute(model.vit, model.sites, (memo or Memo()).fact(("recompute", level), make))


def level_of(cfg: CfgNode) -> str:
    """Which of LEVELS the node ``MODEL`` asks for."""
    return "blocks" if cfg.GRAD_CHECKPOINT else cfg.RECOMPUTE


def plan_of(
    model: TunedViT,
    level: str,
    size: tuple[int, int],
    images: int = 32,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
) -> Plan:
    """What each block of ``model`` keeps at a level of MODEL.RECOMPUTE; blocks that are not named are left alone.

    Args:
        size: height and width of images; ``images`` of them make a batch.
        device, autocast: as in ``activation_bytes``.

    Raises:
        DoesNotFit: the network is of no known family.
    """
    if level == "off":
        return {}
    names = [name for name, block in blocks(model.vit).items() if not _counts(model, block)]
    if level == "blocks" or not names:
        return dict.fromkeys(names, frozenset())
    kind = torch.device(device).type if torch.cuda.is_available() else "cpu"
    shadow, mode = shadow_of(model, kind)
    shadow.train()
    recompute(shadow.vit, shadow.sites, {})
    plan, known = {}, {}
    with mode, torch.autocast(kind, autocast, enabled=autocast is not None):
        calls = _calls(shadow, torch.empty(images, 3, *size, device=kind))
        for name, inputs in ((name, calls[name]) for name in names):
            form = _form(shadow, name, inputs)
            if form not in known:
                known[form] = Trial(shadow, name, *inputs).choice()
            if known[form] is not None:
                plan[name] = known[form]
    return plan


def _counts(model: TunedViT, block: nn.Module) -> bool:
    """Whether the block has batch norms in training mode: computed again, they would count every batch twice."""
    in_training = any(method.vit_in_train_mode for method in model.methods.values())
    return in_training and any(isinstance(module, _BatchNorm) for module in block.modules())


def _calls(model: TunedViT, images: Tensor) -> dict[str, tuple[tuple, dict]]:
    """What enters every block, before the taps at it: arguments by position and by name."""
    calls, hooks = {}, []
    for name, block in blocks(model.vit).items():

        def note(_: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
            calls[name] = tree_map(_apart, (args, kwargs))

        hooks.append(block.register_forward_pre_hook(note, prepend=True, with_kwargs=True))
    model(images)
    for hook in hooks:
        hook.remove()
    return calls


def _apart(value: Any) -> Any:
    """A tensor without its history, which wants a gradient if it did."""
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _form(model: TunedViT, name: str, inputs: tuple[tuple, dict]) -> tuple:
    """What decides what a block keeps; blocks of the same form have the same plan."""
    taps = [tap for site, own in model.sites.items() if is_inside(site, name) for tap in own.taps]
    parts = [
        (type(module).__name__, *((n, p.shape, p.requires_grad) for n, p in module.named_parameters()))
        for module in (model.vit.get_submodule(name), *taps)
    ]
    tensors = [(x.shape, x.requires_grad) for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    return (*parts, *tensors)


class Cost(NamedTuple):
    """What a block keeps, in bytes, and the operations of its backward pass, a multiply-add being two."""

    kept: int
    work: int


class Trial:
    """One block on shapes alone, with what enters it."""

    def __init__(self, model: TunedViT, name: str, args: tuple, kwargs: dict):
        self.model, self.name, self.inputs = model, name, (args, kwargs)
        self.block = model.vit.get_submodule(name)

    def choice(self) -> frozenset[Product] | None:
        """The products to keep; None: the block is best left alone."""
        plain, target = self.cost(), SHARE * self.of_full_fine_tuning().kept
        if plain.kept <= target:
            return None
        tried = self.tried(target)
        if reaching := [kept for kept, cost in tried.items() if cost.kept <= target]:
            return min(reaching, key=lambda kept: tried[kept][::-1])
        least = min(tried, key=tried.get)
        return least if tried[least].kept < plain.kept else None

    def tried(self, target: float) -> dict[frozenset[Product], Cost]:
        """Sets of products to keep, until one keeps little enough: all, all but each one, then with as little work as
        it should take if what goes adds up; at last next to none."""
        with Watching() as watching:
            self._run()
        every = frozenset(some for some, made in watching.products.items() if made.work > FEW * made.numbers)
        least = TINY * sum(made.kept for made in watching.products.values())
        large = [some for some in every if watching.products[some].kept > least]
        tried = {every: self.with_recomputation(every)}
        kept, work = tried[every]
        tried |= {every - {some}: self.with_recomputation(every - {some}) for some in large}
        single = {some: Cost(kept - tried[every - {some}].kept, tried[every - {some}].work - work) for some in large}
        for gone in (*cheapest(single, kept - target)[:TRIES], frozenset(large)):
            if every - gone not in tried:
                tried[every - gone] = self.with_recomputation(every - gone)
            if tried[every - gone].kept <= target:
                break
        return tried

    def with_recomputation(self, kept: frozenset[Product]) -> Cost:
        """While these products are kept."""
        recompute(self.model.vit, self.model.sites, {self.name: kept})
        cost = self.cost()
        recompute(self.model.vit, self.model.sites, {})
        return cost

    def cost(self) -> Cost:
        """Of one forward and backward."""
        with Live(self.model) as live:
            made = [y for y in tree_leaves(self._run()) if isinstance(y, Tensor)]
            kept = live.bytes - sum(y.nbytes for y in made)  # the next block's
        made = [y for y in made if y.requires_grad]
        if not made:
            return Cost(0, 0)
        with Watching() as watching:
            torch.autograd.backward(made, [torch.empty_like(y) for y in made])
        self.model.zero_grad(set_to_none=True)
        return Cost(kept, watching.work)

    def _run(self) -> Any:
        args, kwargs = tree_map(_copy, self.inputs)  # in their place are results of what comes before the block
        return self.block(*args, **kwargs)

    def of_full_fine_tuning(self) -> Cost:
        """The block without taps, all of whose weights train."""
        with self._untapped():
            return self.cost()

    @contextmanager
    def _untapped(self) -> Iterator[None]:
        sites = {site: own for site, own in self.model.sites.items() if is_inside(site, self.name)}
        trained = [param for param in self.block.parameters() if param.requires_grad]
        for own in sites.values():
            own.idle = True
        try:
            self.block.requires_grad_(True)
            yield
        finally:
            for own in sites.values():
                own.idle = False
            self.block.requires_grad_(False)
            for param in trained:
                param.requires_grad = True


def cheapest(single: dict[Product, Cost], wanted: float) -> list[frozenset[Product]]:
    """Sets of products that together free the ``wanted`` bytes, those that make least work first.

    Args:
        single: what doing without one frees, and the work that makes; of the largest MOST.
    """
    largest = sorted(single, key=lambda some: -single[some].kept)[:MOST]
    sets = chain.from_iterable(combinations(largest, count + 1) for count in range(len(largest)))
    sums = {frozenset(gone): Cost(*map(sum, zip(*map(single.get, gone), strict=True))) for gone in sets}
    enough = [gone for gone, free in sums.items() if free.kept >= wanted]
    return sorted(enough, key=lambda gone: (sums[gone].work, -sums[gone].kept))
