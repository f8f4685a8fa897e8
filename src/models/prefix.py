"""The frozen prefix of a tuned network: what comes before the first thing that trains computes the same every epoch.

A forward is a chain of stages: patch embedding, position embedding, every block, norm, pooling. The prefix ends before
the first one that has a trained parameter, a tap that changes what passes it, or something random. Taps that only read
may be in it: what they read is the same in every epoch too, and is kept beside the tokens.
"""

from dataclasses import dataclass

import torch
from timm.layers import DropPath, PatchDropout
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from .families import family_of
from .families.stages import Stage
from .memo import Memo
from .method import wires
from .sites import blocks
from .taps import Reader
from .vit_models import TunedViT

WORD = 8  # bytes of an int64


@dataclass(frozen=True)
class Layout:
    """How one image's tensors are packed into a record of W int64 words: byte after byte, in memory order.

    Convolutions give maps whose channels come last in memory, and compute other bits on maps where they do not.
    """

    shapes: tuple[tuple[int, ...], ...]  # without the batch, in memory's order
    orders: tuple[tuple[int, ...], ...]  # which axis comes when in memory, the batch first
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> "Layout":
        orders = [(0, *sorted(range(1, t.ndim), key=lambda axis: -t.stride(axis))) for t in tensors]
        shapes = tuple(tuple(t.permute(o).shape[1:]) for t, o in zip(tensors, orders, strict=True))
        return cls(shapes, tuple(orders), tuple(t.dtype for t in tensors))

    @property
    def sizes(self) -> list[int]:
        """Bytes of each tensor."""
        return [torch.Size(s).numel() * dtype.itemsize for s, dtype in zip(self.shapes, self.dtypes, strict=True)]

    @property
    def width(self) -> int:
        """W"""
        return -(-sum(self.sizes) // WORD)

    def pack(self, tensors: list[Tensor]) -> Tensor:
        """Tensors (B, ...) -> records (B, W)."""
        parts = [
            t.permute(order).flatten(1).contiguous().view(torch.uint8)
            for t, order in zip(tensors, self.orders, strict=True)
        ]
        parts.append(parts[0].new_zeros(len(parts[0]), self.width * WORD - sum(self.sizes)))
        return torch.cat(parts, dim=1).view(torch.int64)

    def unpack(self, records: Tensor) -> list[Tensor]:
        """Records (B, W) -> the tensors that were packed."""
        *parts, _ = records.view(torch.uint8).split([*self.sizes, self.width * WORD - sum(self.sizes)], dim=1)
        tensors = []
        for part, shape, order, dtype in zip(parts, self.shapes, self.orders, self.dtypes, strict=True):
            tensor = part.contiguous().view(dtype).unflatten(1, shape)
            tensors.append(tensor.permute([order.index(axis) for axis in range(tensor.ndim)]))
        return tensors


class Prefix:
    """images (B, 3, H, W) -> records (B, W), all that ``suffix`` needs of them.

    Attributes:
        name: of its last stage, "blocks.9", or "the pooled features".
        stages: those in it.
        suffix: records (B, W) -> logits, by the model's own modules.
        example: records of the images that it was checked with.
    """

    def __init__(
        self,
        model: TunedViT,
        inside: list[Stage],
        rest: list[Stage],
        readers: list[Reader],
        images: Tensor,
        memo: Memo,
    ):
        self.name = inside[-1].name if rest else "the pooled features"
        self.stages, self.readers = inside, readers
        self.layout, order, self.example = memo.fact(("records up to", self.name), lambda: self._look(images))
        self.suffix = Suffix(model, rest, [readers[i] for i in order], self.layout)

    def _look(self, images: Tensor) -> tuple[Layout, list[int], Tensor]:
        """How records lie, which readers read in which order, and the records of ``images``."""
        tensors, order = self._run(images)
        layout = Layout.of(tensors)
        return layout, [self.readers.index(reader) for reader in order], layout.pack(tensors)

    def __call__(self, images: Tensor) -> Tensor:
        tensors, _ = self._run(images)
        return self.layout.pack(tensors)

    def _run(self, x: Tensor) -> tuple[list[Tensor], list[Reader]]:
        """What leaves the last stage and what every reader reads, and these in the order in which they did."""
        log = []
        for reader in self.readers:
            reader.log = log
        try:
            for stage in self.stages:
                x = stage.run(x)
        finally:
            for reader in self.readers:
                reader.log = None
        passing = x if isinstance(x, tuple) else (x,)
        return [*passing, *(read for _, read in log)], [reader for reader, _ in log]


class Suffix(nn.Module):
    """The model after its frozen prefix: records (B, W) -> logits (B, num_classes); its modes are the model's."""

    def __init__(self, model: TunedViT, rest: list[Stage], readers: list[Reader], layout: Layout):
        super().__init__()
        self.model, self.rest, self.layout = model, rest, layout
        self.readers = tuple(readers)  # they are in the model

    def forward(self, records: Tensor) -> Tensor:
        return self.model.head(self.features(records))

    def features(self, records: Tensor) -> Tensor:
        """What the head sees: (B, W) -> (B, D)."""
        tensors = self.layout.unpack(records)
        count = len(tensors) - len(self.readers)  # of what passes between stages
        for reader, seen in zip(self.readers, tensors[count:], strict=True):
            reader.answer(seen)
        x = tensors[0] if count == 1 else tuple(tensors[:count])
        for stage in self.rest:
            x = stage.run(x)
        return self.model.joined(x)


@torch.no_grad()
def frozen_prefix(model: TunedViT, images: Tensor, memo: Memo | None = None) -> Prefix | None:
    """The longest frozen prefix of ``model``, which ends in eval mode; None: there is none with a block in it.

    Args:
        images: two or more (B, 3, H, W), from which sizes are taken and on which both parts must be what the model is.
        memo: where facts about the prefix are kept for the next model that starts as this one does.
    """
    memo = memo or Memo()
    model.eval()
    reading = _reading(model)
    inside, rest = _cut(model, _acting(model), {site for site, _ in reading})
    if not any(stage.has(block) for stage in inside for block in blocks(model.vit)):
        return None  # nothing worth keeping
    readers = [tap for site, tap in reading if any(stage.has(site) for stage in inside)]
    prefix = Prefix(model, inside, rest, readers, images, memo)

    def agrees() -> bool:
        expected, logits = model(images), prefix.suffix(prefix.example)
        return bool((logits - expected).abs().max() <= 1e-3 * expected.abs().max())

    return prefix if memo.fact(("agrees up to", prefix.name), agrees) else None


def untouched(model: TunedViT) -> tuple[list[Stage], list[Stage]]:
    """The stages that are the frozen network's own, and the rest; no stages at all where they are not known.

    Models on one frozen network compute the same in the former, and no tap reads there.
    """
    reading = {site for site, _ in _reading(model)}
    return _cut(model, _acting(model) | reading, set())


def _cut(model: TunedViT, acting: set[str], reading: set[str]) -> tuple[list[Stage], list[Stage]]:
    """The stages before the first that has a name of ``acting``, and the rest; none if a name is in no stage."""
    chain = family_of(model.vit).stages(model.vit)
    if any(not any(stage.has(name) for stage in chain) for name in acting | reading):
        return [], []  # something acts at an unknown stage
    count = next((i for i, stage in enumerate(chain) if any(map(stage.has, acting))), len(chain))
    return chain[:count], chain[count:]


def _acting(model: TunedViT) -> set[str]:
    """Names of the network's modules and parameters because of which an activation may change between epochs."""
    names = {name for name, param in model.vit.named_parameters() if param.requires_grad}
    names |= {site for _, site, verb, tap in wires(model.methods) if not _only_reads(model, verb, tap)}
    if any(method.vit_in_train_mode for method in model.methods.values()):
        names |= {name for name, module in model.vit.named_modules() if _random(module)}
    dropping = {id(module) for module in model.drop_paths if _random(module)}
    return names | {name for name, module in model.vit.named_modules() if id(module) in dropping}


def _reading(model: TunedViT) -> list[tuple[str, Reader]]:
    """Every reader with its site."""
    taps = [(site, verb, tap) for _, site, verb, tap in wires(model.methods) if isinstance(tap, Reader)]
    return [(site, tap) for site, verb, tap in taps if _only_reads(model, verb, tap)]


def _only_reads(model: TunedViT, verb: str, tap: nn.Module) -> bool:
    """Whether all that passes a tap stays as it is; a tap at several sites could not say what it read where."""
    return (
        getattr(tap, "reads_only", False)
        and verb in ("before", "after")
        and sum(other is tap for *_, other in wires(model.methods)) == 1
    )


def _random(module: nn.Module) -> bool:
    """Whether a module in training mode does not compute a function of one image."""
    rates = {_DropoutNd: "p", DropPath: "drop_prob", PatchDropout: "prob"}
    active = any(isinstance(module, kind) and getattr(module, rate) for kind, rate in rates.items())
    return active or isinstance(module, _BatchNorm)
