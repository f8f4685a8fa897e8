"""Which matrix products and attentions a part of a network computes, what they make, and by how many operations."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from ..models.recompute import Product, product

OPERATIONS = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


class Made(NamedTuple):
    """What all products of one kind make: how many numbers, in how many bytes, by how many operations."""

    numbers: int = 0
    kept: int = 0
    work: int = 0


class Watching(TorchDispatchMode):
    """Counts operations, and those of each kind of product that nothing changes afterwards.

    What is changed in place must not be kept: torch would use it as it is after the change.
    """

    def __init__(self):
        super().__init__()
        self.made: dict[Product, Made] = {}
        self.work = 0
        self._storages: dict[torch.UntypedStorage, Product] = {}
        self._changed: set[Product] = set()

    @property
    def products(self) -> dict[Product, Made]:
        return {some: made for some, made in self.made.items() if some not in self._changed}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        count = OPERATIONS.get(func._overloadpacket)
        work = count(*args, **(kwargs or {}), out_val=made) if count else 0
        self.work += work
        if (found := product(func, args)) is not None:
            first = made[0] if isinstance(made, (tuple, list)) else made
            old = self.made.get(found, Made())
            self.made[found] = Made(old.numbers + first.numel(), old.kept + first.nbytes, old.work + work)
            self._storages[first.untyped_storage()] = found
        if func._schema.is_mutable:
            self._changed |= {self._storages[s] for s in self._written(func, args) if s in self._storages}
        return made

    @staticmethod
    def _written(func: Any, args: tuple) -> list[torch.UntypedStorage]:
        """What an operation changes in place."""
        given = zip(func._schema.arguments, args, strict=False)
        written = tree_leaves([value for argument, value in given if argument.is_write])
        return [tensor.untyped_storage() for tensor in written if isinstance(tensor, Tensor)]
