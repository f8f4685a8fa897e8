"""A limit on torch's allocations while something is built from untrusted settings."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TooMuch(ValueError):
    """More was allocated than allowed."""


class AllocatingAtMost(TorchDispatchMode):
    """Inside, operations may create at most ``tensors`` tensors of ``limit`` bytes in all, including freed ones.

    The limit is checked after a tensor is allocated but before it is filled, when it costs no memory yet.

    Raises:
        TooMuch: the limit is exceeded.
    """

    def __init__(self, limit: int, tensors: int):
        super().__init__()
        self.limit = limit
        self.tensors = tensors
        self.made = 0
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(returned.alias_info for returned in func._schema.returns):  # views and in-place operations
            return result
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self.made += leaf.untyped_storage().nbytes()
                self.count += 1
        if self.made > self.limit or self.count > self.tensors:
            raise TooMuch(f"more than {self.limit:,} bytes or {self.tensors:,} tensors would be allocated")
        return result
