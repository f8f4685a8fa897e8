"""What a family of timm's networks is: the names of its parts, and the steps of its forward.

Methods ask for parts by role. A role is what timm's VisionTransformer calls the part: "attn.qkv", "mlp.fc1", "norm1".
A family says which of its modules play a role under another name, which roles nothing plays, and where the rest is.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn


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
class Stage:
    """One step of a forward, and the modules and parameters of the network that it uses."""

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


class Family:
    """One family of networks. To add one: a file beside this one with a subclass, and its line in FAMILIES."""

    title: str  # for tables
    network: type[nn.Module]  # timm's class; its subclasses belong to the family too
    timm_modules: tuple[str, ...]  # timm.models.<module> with the names that build such networks

    # The names of blocks, as a regular expression.
    block: str
    # Roles played by modules of another name, or by several together: their names.
    parts: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    # Roles, with all below them, that nothing plays in any block. Methods do what remains of them.
    absent: tuple[str, ...] = ()
    # The norms of a block: those at the start of the first branch, then of the second; in some networks also inside.
    norms: dict[str, tuple[str, ...]] = {"norm1": ("norm1",), "norm2": ("norm2",)}  # noqa: RUF012
    # All that has weights between image and final norm: the roles in a block, and the other modules as a regular
    # expression.
    operations: tuple[str, ...]
    other_operations: str

    patches = "patch_embed"  # what makes tokens or maps of the image
    projection = "patch_embed.proj"  # the convolution in it
    final_norms: tuple[str, ...] = ("norm",)  # after the last block, those that a network of the family may have
    readout: tuple[str, ...] = ("head",)  # what comes after the final norm

    # Whether one sequence of tokens passes through all blocks, which methods need unless they are ``for_any_backbone``.
    sequence = False
    # Whether it takes images of any size, and is not built for one.
    any_size = False
    # Methods of ``network`` that compute as ``stages`` says. A subclass with another of these computes otherwise.
    steps: tuple[str, ...] = ("forward_features", "forward_head")

    def tokens(self, vit: nn.Module, pool: str) -> Tokens | None:
        """The sequence in the network's blocks; None where there are maps of several sizes instead."""
        return None

    def part(self, block: nn.Module, role: str) -> dict[str, nn.Module]:
        """The modules of a block that play a role, by name; none if there are none, or only an Identity."""
        inside = {name: module for name, module in block.named_modules() if not isinstance(module, nn.Identity)}
        names = (role,) if role in inside else self.parts.get(role, ())
        return {name: inside[name] for name in names if name in inside}

    def lacks(self, role: str) -> bool:
        """Whether no block of this family has anything in a role."""
        return any(is_inside(role, other) for other in self.absent)

    def operations_of(self, vit: nn.Module) -> list[str]:
        """Names of the modules with weights between image and final norm, in the network's own order."""
        names = {name for name, _ in vit.named_modules() if re.fullmatch(self.other_operations, name)}
        for name, block in vit.named_modules():
            if re.fullmatch(self.block, name):
                names |= {f"{name}.{own}" for role in self.operations for own in self.part(block, role)}
        return [name for name, op in vit.named_modules() if name in names and not isinstance(op, nn.Identity)]

    def entrance(self, vit: nn.Module, site: str) -> str:
        """The first module on the tokens' way to a branch, such as "blocks.0.norm2" for "blocks.0.mlp".

        The branch itself where it reads the tokens as they are; "" where no module sees them in the branch's shape.
        """
        return ""

    def final_norm(self, vit: nn.Module, pooled: str) -> str:
        """The name of the last norm.

        Args:
            pooled: "fc_norm" or "norm": which one it is where tokens are averaged between the two.
        """
        return self.final_norms[0]

    def image_size(self, vit: nn.Module) -> tuple[int, int]:
        """Height and width of the images that a network is made for."""
        return (224, 224) if self.any_size else tuple(vit.patch_embed.img_size)

    def can_change_pool(self, vit: nn.Module) -> bool:
        """Whether MODEL.POOL may choose what the network pools."""
        return False

    def arguments(self, vit: nn.Module, image_size: tuple[int, int], depth: int) -> dict:
        """Arguments of ``timm.create_model`` for such a network with ``depth`` blocks, in JSON's types."""
        return {} if self.any_size else {"img_size": list(image_size)}

    def stages(self, vit: nn.Module) -> list[Stage]:
        """What maps images to the pooled features, step by step; none where the steps are not known."""
        same = all(getattr(type(vit), step) is getattr(self.network, step) for step in self.steps)
        return self._stages(vit) if same else []

    def _stages(self, vit: nn.Module) -> list[Stage]:
        return []


def is_inside(name: str, part: str) -> bool:
    """Whether a module or parameter is ``part``, or belongs to it."""
    return name == part or name.startswith(f"{part}.")
