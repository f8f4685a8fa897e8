"""Copies of a network that share its weights' memory for as long as nobody writes to them.

torch copies on write: the first of the sharers that changes a tensor, in place, by ``.data`` or with an optimizer, gets
memory of its own, and all others keep the values they had. Copies are therefore as independent as those of
``copy.deepcopy``, and only what differs takes memory. Asking for a tensor's address (``data_ptr``, ``numpy()``,
pickling) counts as writing. Where torch cannot share, such as for memory of NumPy or a mapped file, a tensor is copied.
"""

import copy
from collections.abc import Collection
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from .memo import Memo

KINDS = (Tensor, nn.Parameter)  # a subclass may be more than its numbers: deepcopy knows how to copy it

_ORIGINALS: WeakKeyDictionary[nn.Module, ref] = WeakKeyDictionary()  # copy -> what it was made of
_KEPT: WeakKeyDictionary[nn.Module, "Kept"] = WeakKeyDictionary()  # original -> what is known of its weights


def sharing_copy(network: nn.Module) -> nn.Module:
    """A copy of ``network``, without gradients, that shares the memory of its parameters and buffers."""
    tensors = [t for t in (*network.parameters(), *network.buffers()) if type(t) in KINDS]
    made = copy.deepcopy(network, {id(tensor): sharing(tensor) for tensor in tensors})
    _ORIGINALS[made] = ref(network)
    return made


def sharing(tensor: Tensor) -> Tensor:
    """A copy of a tensor, or parameter, that shares its memory."""
    own = _lazily(tensor)
    own = tensor.detach().clone() if own is None else own
    return nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own


def _lazily(tensor: Tensor) -> Tensor | None:
    try:
        return torch._lazy_clone(tensor.detach())
    except (AttributeError, RuntimeError):  # a torch without it, or memory that is not torch's own
        return None


def share(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same values in the same memory, none of them written to since one was copied."""
    address = _address(one)
    alike = (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
    return address is not None and address == _address(other) and alike


def _address(tensor: Tensor) -> int | None:
    """Of memory that is copied on write; None for any other. Asking so is no writing."""
    try:
        return torch._C._data_address(tensor) if torch._C._is_cow_tensor(tensor) else None
    except AttributeError:  # a torch without it
        return None


def memo_of(network: nn.Module, names: Collection[str]) -> Memo:
    """Where facts are kept about tensors of a state dict, for a network and all copies of the same original.

    They hold until someone writes to one of the tensors: then the memo is a new one.
    """
    original = _ORIGINALS[network]() if network in _ORIGINALS else None
    original = network if original is None else original
    if original not in _KEPT or not _KEPT[original].has(original, names):
        _KEPT[original] = Kept(original)
    return _KEPT[original].memo if _KEPT[original].has(network, names) else Memo()


class Kept:
    """Facts about a network's weights, and a copy of these, which nobody writes to, to tell whether they changed."""

    def __init__(self, network: nn.Module):
        self.memo = Memo()
        self.tensors = {name: _lazily(tensor) for name, tensor in network.state_dict().items()}

    def has(self, network: nn.Module, names: Collection[str]) -> bool:
        """Whether the network still has the values that these had."""
        state = network.state_dict()
        pairs = [(state.get(name), self.tensors.get(name)) for name in names]
        return all(one is not None and other is not None and share(one, other) for one, other in pairs)
