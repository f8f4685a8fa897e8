"""A look at what passes through torch on a device that is not the host, without one: on "meta", which has no numbers.

A model that was built on the CPU and moved there meets the faults that it would meet on a GPU: tensors that stayed on
the CPU, values that the host must wait for, and float64, which GPUs compute slowly. A list that becomes a tensor there
also makes the host wait, and is not seen here.
"""

import copy

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What returns a value, or a shape that depends on values, to the host.
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_linalg_check_errors"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}
INDEXING = ("index", "index_put", "index_put_")
DOUBLE = (torch.float64, torch.complex128)


class Fault(AssertionError):
    """What would stop a GPU, or make it wait."""


class OnDevice(TorchDispatchMode):
    """Raises Fault where a step on a GPU would wait for the host, meet a tensor of the CPU, or compute in float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in given if tensor.is_meta]
        left = [tensor for tensor in given if not tensor.is_meta and tensor.dim()]
        target = (kwargs or {}).get("device")
        if left and (there or (target is not None and torch.device(target).type == "meta")):
            raise Fault(f"{name} meets a tensor {tuple(left[0].shape)} of the CPU")
        if there and (name in WAITS or (target is not None and torch.device(target).type == "cpu")):
            raise Fault(f"{name} waits for a value")
        if name in INDEXING and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:]):
            raise Fault(f"{name} with a mask waits for the number of its entries")
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta and tensor.dtype in DOUBLE:
                raise Fault(f"{name} computes in {tensor.dtype}")
        return made


def moved(model: nn.Module, device: str) -> nn.Module:
    """A copy of ``model`` with parameters and buffers on ``device``, and only these, as ``model.to`` does.

    (On "meta", ``to`` makes new parameters, and modules that share one do so no longer.)
    """
    memo = {}
    for tensor in (*model.parameters(), *model.buffers()):
        there = torch.empty_like(tensor, device=device)
        memo[id(tensor)] = nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there
    return copy.deepcopy(model, memo)
