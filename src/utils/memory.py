"""A bound on what torch allocates while something is built from settings that a stranger may have written."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TooMuch(ValueError):
    """More was asked for than was allowed."""


class AllocatingAtMost(TorchDispatchMode):
    """Inside, operations may make so many tensors, of so many bytes together; what is freed again counts too.

    Large tensors are asked of the system, but not filled, before the bound is looked at: they cost no memory.

    Raises:
        TooMuch: they made more.
    """

    def __init__(self, limit: int, tensors: int):
        super().__init__()
        self.limit, self.tensors = limit, tensors
        self.made, self.count = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(returned.alias_info for returned in func._schema.returns):  # views and changes in place make nothing
            return result
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self.made += leaf.untyped_storage().nbytes()
                self.count += 1
        if self.made > self.limit or self.count > self.tensors:
            raise TooMuch(f"more than {self.limit:,} bytes or {self.tensors:,} tensors are asked for")
        return result
