"""Copies of a network, made several times faster than by ``copy.deepcopy``."""

import io
import pickle

from torch import Tensor, nn


class Copies:
    """Call it for one more copy of ``network`` as it was: nothing is shared, tied parameters are tied in the copy."""

    def __init__(self, network: nn.Module):
        written = io.BytesIO()
        writer = _Writer(written)
        writer.dump(network)
        self._written, self._tensors = written.getvalue(), [copied(tensor) for tensor in writer.tensors.values()]

    def __call__(self) -> nn.Module:
        return _Reader(io.BytesIO(self._written), self._tensors).load()


def copied(tensor: Tensor) -> Tensor:
    own = tensor.detach().clone()
    return nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own


class _Writer(pickle.Pickler):
    """Writes numbers in the place of tensors."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=5)
        self.tensors: dict[int, Tensor] = {}  # by id

    def persistent_id(self, value):
        if not isinstance(value, Tensor):
            return None
        self.tensors.setdefault(id(value), value)
        return list(self.tensors).index(id(value))


class _Reader(pickle.Unpickler):
    """Puts a copy of each tensor in the place of its number."""

    def __init__(self, file: io.BytesIO, tensors: list[Tensor]):
        super().__init__(file)
        self._made, self._tensors = {}, tensors

    def persistent_load(self, index: int) -> Tensor:
        if index not in self._made:
            self._made[index] = copied(self._tensors[index])
        return self._made[index]
