"""What passes through a network: the sequence of tokens between its blocks, and the steps of its forward."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from .names import is_inside


@dataclass
class Tokens:
    """The sequence (B, N, dim) between blocks: N = prefix + prompts + rows * cols, in that order.

    ``prompts[i]`` is the number of prompt tokens that enter block i, ``prompts[depth]`` the number that leaves the
    last one. A prompt method sets them when it attaches; methods further inside, attached later, see them.
    """

    prefix: int  # class and register tokens
    rows: int  # patch grid
    cols: int
    dim: int
    depth: int
    prompts: list[int] = field(default_factory=list)
    pool: str = ""  # MODEL.POOL: what is pooled, where that is not left to the backbone
    patch: tuple[int, int] = (16, 16)  # height and width of a patch in pixels

    def __post_init__(self):
        self.prompts = self.prompts or [0] * (self.depth + 1)


@dataclass(frozen=True)
class Grid:
    """What enters a block, or leaves the last one: ``skip`` tokens, then rows * cols patches of ``dim`` channels.

    ``channels``: "" for a sequence (B, N, dim), "last" for maps (B, rows, cols, dim), "first" for (B, dim, rows, cols).
    """

    skip: int
    rows: int
    cols: int
    dim: int
    channels: str = ""


def pooled(vit: nn.Module, x: Tensor) -> Tensor:
    """What timm's networks that have no method for it pool of their tokens: (B, N, D) -> (B, D)."""
    if not vit.global_pool:
        return x
    return x[:, vit.num_prefix_tokens :].mean(1) if vit.global_pool == "avg" else x[:, 0]


@dataclass(frozen=True)
class Stage:
    """One step of a forward, and the modules and parameters of the network that it uses.

    What passes from step to step is a tensor, or a tuple of several.
    """

    name: str
    parts: tuple[str, ...]
    run: Callable[[Tensor], Tensor]

    @classmethod
    def module(cls, vit: nn.Module, name: str) -> "Stage":
        """The step that calls one module."""
        return cls(name, (name,), vit.get_submodule(name))

    def has(self, name: str) -> bool:
        """Whether the module or parameter ``name`` is among its parts, or inside one of them."""
        return any(is_inside(name, part) for part in self.parts)
