"""What a training step holds in memory, found without computing: only shapes pass through a copy of the network."""

import copy
import weakref
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Activations(NamedTuple):
    """Bytes held between forward and backward: ``fixed``, such as a weight in another type, and ``per_image``."""

    fixed: int
    per_image: int

    def of(self, images: int) -> int:
        """Bytes for a batch."""
        return self.fixed + images * self.per_image


def activation_bytes(
    model: nn.Module,
    size: tuple[int, int],
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
) -> Activations:
    """What autograd keeps of one forward of ``model`` in training: distinct storages, without parameters and buffers.

    ``engine.memory.activation_bytes``: nothing is computed and ``model`` stays as it is, so that it may be on the meta
    device; ViT-B/16 takes half a second. Recomputation counts as what it keeps. The images do not count.

    Args:
        model: images (B, 3, H, W) -> logits, such as a TunedViT; not compiled.
        size: height and width of images.
        device: on which the step would run; operations differ in what they keep. A GPU that is not there counts as a
            CPU, whose attention keeps the same.
        autocast: torch.bfloat16 or torch.float16; None: none.
    """
    kind = torch.device(device).type if torch.cuda.is_available() else "cpu"
    shadow, mode = shadow_of(model, kind)
    shadow.train()
    found = {}
    for images in (2, 3):  # not one: batch norms normalise over a batch
        with mode:
            batch = torch.empty(images, 3, *size, device=kind)
            with Live(shadow, batch) as live, torch.autocast(kind, autocast, enabled=autocast is not None):
                graph = shadow(batch).grad_fn  # holds all that is kept, and not the logits
            found[images] = live.bytes
            del graph, batch
    per_image = found[3] - found[2]
    return Activations(found[2] - 2 * per_image, per_image)


def shadow_of(model: nn.Module, device: torch.device | str) -> tuple[nn.Module, FakeTensorMode]:
    """A copy of ``model`` whose tensors have shapes and no numbers, as if on ``device``, and the mode that runs it."""
    mode, memo = FakeTensorMode(allow_non_fake_inputs=True), {}
    with mode:
        for tensor in (*model.parameters(), *model.buffers()):
            fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            memo[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake
    return copy.deepcopy(model, memo), mode  # tensors that are no parameters or buffers keep their numbers


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside it and still there, and the most there were at once.

    Args:
        network, given: whose tensors do not count, whoever holds them.
    """

    def __init__(self, network: nn.Module, *given: Tensor):
        super().__init__()
        self.bytes = self.peak = 0
        tensors = (*network.parameters(), *network.buffers(), *given)
        self._known = {tensor.untyped_storage()._cdata: None for tensor in tensors}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: weakref.ref) -> None:
            del self._known[key]
            self.bytes -= size

        self._known[key] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
