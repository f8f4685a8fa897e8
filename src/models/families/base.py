"""What a family of timm's networks is: where its parts are, and the steps of its forward.

Methods ask for parts by role: a branch ("attn", "mlp"), a linear map in it ("attn.qkv", "attn.q", "mlp.fc1"), a norm
("norm1"). A family says which modules of a block play a role, which roles nothing plays, and where the rest is.
"""

import re
from dataclasses import dataclass

from timm.layers import (
    RmsNorm,
    RmsNorm2d,
    RmsNorm2dFp32,
    RmsNormFp32,
    SimpleNorm,
    SimpleNorm2d,
    SimpleNorm2dFp32,
    SimpleNormFp32,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...utils.text import a_kind
from .names import is_inside, matching
from .stages import Stage, Tokens

# How timm calls the linear maps in a branch: the first set of names that are all there.
MAPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "attn.qkv": (("qkv",), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v")),
    "attn.q": (("q_proj",), ("q",)),
    "attn.k": (("k_proj",), ("k",)),
    "attn.v": (("v_proj",), ("v",)),
    "attn.proj": (("proj",),),
    "attn.gate": (("gate",),),  # of what attention returns
    "mlp.fc1": (("fc1",), ("fc1_g", "fc1_x"), ("w12",), ("w1", "w2")),  # the gate and the value of a SwiGLU
    "mlp.fc2": (("fc2",), ("w3",)),
}
# Normalisations over channels with a weight for each; BatchNorm's statistics stay the pre-trained ones.
RMS_NORMS = (nn.RMSNorm, RmsNorm, RmsNormFp32)
SIMPLE_NORMS = (SimpleNorm, SimpleNorm2d, SimpleNormFp32, SimpleNorm2dFp32)
NORMS = (nn.LayerNorm, *RMS_NORMS, RmsNorm2d, RmsNorm2dFp32, *SIMPLE_NORMS, nn.GroupNorm, _BatchNorm)
THIRDS = ("attn.q", "attn.k", "attn.v")  # of a fused attn.qkv


class DoesNotFit(ValueError):
    """A network does not have what a method needs; ``TunedViT`` adds which method, which network and what to do."""


@dataclass(frozen=True)
class Rows:
    """A linear map that plays a role, or those of a fused one's output channels that do.

    ``name`` is the module's in its block. ``count`` channels from ``start`` on are the role's; None: all.
    """

    name: str
    module: nn.Module
    start: int = 0
    count: int | None = None


class Family:
    """One family of networks. To add one: a file beside this one with a subclass, and its line in FAMILIES."""

    title: str  # for tables
    network: type[nn.Module]  # timm's class; its subclasses belong to the family too

    # The names of blocks, as a regular expression.
    block: str
    # Names of attention and of MLPs in a block, as regular expressions.
    attentions: tuple[str, ...] = ("attn",)
    mlps: tuple[str, ...] = ("mlp",)
    # Roles played by modules of other names than MAPS has: their names in a block, as regular expressions.
    parts: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    # Roles, with all below them, that nothing plays in any block. Methods do what remains of them.
    absent: tuple[str, ...] = ()
    # Those that only some blocks lack, such as the convolutional ones of a mixed network.
    sometimes_absent: tuple[str, ...] = ()
    # Linear maps and convolutions in a block that no role has and that methods leave as they are, as a regular
    # expression: those that see positions or attention weights, not features.
    others: str = ""
    # The norms of a block: those at the start of the first branch, then of the second; in some networks also inside.
    norms: dict[str, tuple[str, ...]] = {"norm1": ("norm1",), "norm2": ("norm2",)}  # noqa: RUF012
    # All that has weights between image and final norm: the roles in a block, and the other modules as a regular
    # expression. CLIP's norm before the blocks (norm_pre) is not among them: the unifying study's SSF leaves it alone.
    operations: tuple[str, ...] = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    other_operations: str = r"patch_embed\.(proj|norm)"

    patches = "patch_embed"  # what makes tokens or maps of the image
    projection = r"patch_embed\.proj"  # the convolution in it, the last of several, as a regular expression
    class_token = "cls_token"  # the parameter, in networks that have one
    final_norms: tuple[str, ...] = ("norm",)  # after the last block, those that a network of the family may have
    readout: tuple[str, ...] = ("head",)  # what comes after the final norm

    # Whether one sequence of tokens passes through all blocks, which methods need unless they are ``for_any_backbone``.
    sequence = False
    # Where channels are in the maps (B, rows, cols, D) or (B, D, rows, cols) between blocks: "last", "first"; "": there
    # are no such maps.
    channels = ""
    # Whether it takes images of any size, and is not built for one.
    any_size = False
    # Blocks whose norms come after the branches.
    norm_after: tuple[type[nn.Module], ...] = ()
    # Blocks that add each branch, which ends in a linear map, to their tokens: with zeros there they do nothing.
    residual: tuple[type[nn.Module], ...] = ()
    # Methods of ``network`` that compute as ``stages`` says. A subclass with another of these computes otherwise.
    steps: tuple[str, ...] = ("forward_features", "forward_head")

    def readers(self, vit: nn.Module, norm: str) -> list[str]:
        """The linear maps that read what a norm returns, where that is not the first of a branch."""
        return []

    def stem(self, vit: nn.Module) -> str:
        """The first module, which reads the images."""
        return self.patches

    def prepare(self, vit: nn.Module) -> None:
        """Make ``vit`` call all its linear maps: some of timm's only have their weights read, with biases of their own.

        What it computes stays the same, to rounding.
        """
        for module in vit.modules():
            if hasattr(module, "qkv_bias_separate"):
                module.qkv_bias_separate = True

    def tokens(self, vit: nn.Module, pool: str) -> Tokens | None:
        """The sequence in the network's blocks; None where there are maps of several sizes instead."""
        return None

    def admit(self, vit: nn.Module, tokens: Tokens) -> None:
        """Get the network ready for prompts between prefix and patches, see ``Tokens.prompts``.

        Raises:
            DoesNotFit: it has no place for them.
        """

    def class_token_of(self, vit: nn.Module) -> nn.Parameter | None:
        """The class token; None where there is none."""
        return dict(vit.named_parameters()).get(self.class_token)

    def part(self, block: nn.Module, role: str) -> dict[str, nn.Module]:
        """The modules of a block that play a role, by name; none if there are none, or only an Identity."""
        inside = {name: module for name, module in block.named_modules() if not isinstance(module, nn.Identity)}
        if role in self.parts:
            return {name: inside[name] for name in matching(self.parts[role], inside)}
        branch, _, _ = role.partition(".")
        found = matching(self.branches(branch), inside)
        if branch == "attn":  # a module of this name may mix tokens otherwise
            found = [place for place in found if _first(f"{place}.", MAPS["attn.qkv"], inside)]
        if role == branch and found:
            return {name: inside[name] for name in found}
        if role not in MAPS:
            return {role: inside[role]} if role in inside else {}
        return {name: inside[name] for place in found for name in _first(f"{place}.", MAPS[role], inside)}

    def branches(self, branch: str) -> tuple[str, ...]:
        """The names in a block, as regular expressions, of "attn" or "mlp"."""
        return {"attn": self.attentions, "mlp": self.mlps}.get(branch, ())

    def rows(self, block: nn.Module, role: str) -> list[Rows]:
        """The linear maps of a block that play a role, and the thirds of a fused qkv that are q, k or v."""
        if role not in THIRDS:
            return [Rows(name, module) for name, module in self.part(block, role).items()]
        found = []
        for place, module in self.part(block, "attn").items():
            inside, fused = dict(module.named_modules()), getattr(module, "qkv", None)
            if fused is not None and hasattr(fused, "out_features"):
                count = fused.out_features // 3
                found.append(Rows(f"{place}.qkv", fused, THIRDS.index(role) * count, count))
            else:
                found += [Rows(f"{place}.{name}", inside[name]) for name in _first("", MAPS[role], inside)]
        return found

    def last(self, block: nn.Module, branch: str) -> nn.Module | None:
        """The linear map that a branch ends with; ``branch`` is its name in the block."""
        module = block.get_submodule(branch)
        names = MAPS["attn.proj"] if branch in matching(self.attentions, [branch]) else MAPS["mlp.fc2"]
        inside = dict(module.named_modules())
        return next((inside[name] for name in _first("", names, inside)), None)

    def exit(self, block: nn.Module, branch: str) -> str:
        """The module, by its name in the block, that returns what a branch adds to its tokens, and nothing else."""
        return branch

    def unknown(self, block: nn.Module) -> list[str]:
        """Names of a block's linear maps and convolutions of which this description says nothing."""
        known = {name for role in (*MAPS, *self.operations) if not self.lacks(role) for name in self.part(block, role)}
        whole = [role for role in MAPS if role not in THIRDS and not self.lacks(role)]
        known |= {rows.name for role in whole for rows in self.rows(block, role)}
        return [
            name
            for name, module in block.named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d)) and name not in known and not re.fullmatch(self.others, name)
        ]

    def lacks(self, role: str) -> bool:
        """Whether no block of this family has anything in a role."""
        return any(is_inside(role, other) for other in self.absent)

    def may_lack(self, role: str) -> bool:
        """Whether a block of this family may have nothing in a role."""
        return self.lacks(role) or any(is_inside(role, other) for other in self.sometimes_absent)

    def operations_of(self, vit: nn.Module) -> list[str]:
        """Names of the modules with weights between image and final norm, in the network's own order."""
        names = {name for name, _ in vit.named_modules() if re.fullmatch(self.other_operations, name)}
        for name, block in vit.named_modules():
            if re.fullmatch(self.block, name):
                found = (self.norms_of(block, r) if r in self.norms else self.part(block, r) for r in self.operations)
                names |= {f"{name}.{own}" for role in found for own in role}
        return [name for name, op in vit.named_modules() if name in names and not isinstance(op, nn.Identity)]

    def projection_of(self, vit: nn.Module) -> str:
        """The name of the convolution, or linear map, that makes tokens or maps of the image.

        Raises:
            DoesNotFit: there is none of the name that is known.
        """
        if not (found := matching([self.projection], [name for name, _ in vit.named_modules()])):
            raise DoesNotFit(f"what makes tokens of images in {a_kind(vit)} is unknown")
        return found[-1]

    def norms_of(self, block: nn.Module, role: str) -> list[str]:
        """Names of a block's norms at the start of its first branch ("norm1") or second, and inside it."""
        return matching(self.norms[role], [n for n, m in block.named_modules() if not isinstance(m, nn.Identity)])

    def entrance(self, vit: nn.Module, site: str) -> str:
        """The first module on the tokens' way to a branch, such as "blocks.0.norm2" for "blocks.0.mlp".

        The branch itself where it reads the tokens as they are; "" where no module sees them in the branch's shape.
        """
        parent, _, branch = site.rpartition(".")
        if isinstance(vit.get_submodule(parent), self.norm_after):
            return site
        modules = dict(vit.named_modules())
        norms = ("norm2" if branch == "mlp" else "norm1", "norm")
        return next((f"{parent}.{norm}" for norm in norms if f"{parent}.{norm}" in modules), "")

    def final_norm(self, vit: nn.Module, pooled: str) -> str:
        """The name of the last norm; "" if there is none.

        Args:
            pooled: "fc_norm" or "norm": which one it is where tokens are averaged between the two.
        """
        return self.final_norms[0]

    def native_patch(self, vit: nn.Module) -> tuple[int, int]:
        """Height and width of the patches of a network that takes images of any aspect ratio in one batch.

        Raises:
            ValueError: it does not.
        """
        raise ValueError(
            "images that keep their aspect ratio (DATA.RESIZE native) are for NaFlex networks, such as "
            f"timm:naflexvit_base_patch16_gap, and this is a {type(vit).__name__}: choose crop or squash, or such a "
            "network"
        )

    def pooled(self, vit: nn.Module, images: Tensor) -> Tensor:
        """The pooled features after the final norm: images (B, 3, H, W) -> (B, dim).

        Also of patches of images (see patches.py), where there is a ``native_patch``.
        """
        return vit.forward_head(vit.forward_features(images), pre_logits=True)

    def image_size(self, vit: nn.Module) -> tuple[int, int]:
        """Height and width of the images that a network is made for."""
        if size := getattr(getattr(vit, self.patches, None), "img_size", None) or _built_for(vit):
            return tuple(size)
        return 224, 224

    def can_change_pool(self, vit: nn.Module) -> bool:
        """Whether MODEL.POOL may choose what the network pools."""
        return False

    def arguments(self, vit: nn.Module, image_size: tuple[int, int], depth: int) -> dict:
        """Arguments of ``timm.create_model`` for such a network with ``depth`` blocks, in JSON's types."""
        return {} if self.any_size else {"img_size": list(image_size)}

    def stages(self, vit: nn.Module) -> list[Stage]:
        """What maps images to the pooled features, step by step; none where the steps are not known."""
        same = all(getattr(type(vit), step) is getattr(self.network, step) for step in self.steps)
        return self._stages(vit) if same and not getattr(vit, "grad_checkpointing", False) else []

    def _stages(self, vit: nn.Module) -> list[Stage]:
        return []


def activates(op: nn.Module) -> bool:
    """Whether a norm has an activation in it: then the convolution before it can be scaled, and it cannot."""
    return not isinstance(getattr(op, "act", nn.Identity()), nn.Identity)


def _first(prefix: str, choices: tuple[tuple[str, ...], ...], inside: dict[str, nn.Module]) -> list[str]:
    """The first set of names that are all there, after ``prefix``."""
    sets = ([prefix + name for name in names] for names in choices)
    return next((names for names in sets if all(name in inside for name in names)), [])


def _built_for(vit: nn.Module) -> tuple[int, int] | None:
    """The image size that timm remembers of a network, or that its published weights are for."""
    size = (getattr(vit, "_traits", None) or {}).get("img_size")
    return size or (getattr(vit, "pretrained_cfg", None) or {}).get("input_size", ())[1:] or None
