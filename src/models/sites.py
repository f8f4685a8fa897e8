"""Where methods act: the blocks of a network, their parts by name, its norms, and what may be wrong with such names."""

import re
from collections.abc import Iterable

from timm.layers import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from .method import DoesNotFit, Method
from .taps import FromKept, Keep

BRANCHES = ("attn", "mlp")
LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # every linear map of a block
THIRDS = ("attn.q", "attn.k", "attn.v")  # of attn.qkv
APART = (*THIRDS, "attn.proj", "mlp.fc1", "mlp.fc2")  # the same linear maps, with q, k and v apart
TARGETS = (*THIRDS, *LINEAR)  # what a method may adapt
FIRST = {"attn": "attn.qkv", "mlp": "mlp.fc1"}  # the linear map that each branch begins with
LAST = {"attn": "attn.proj", "mlp": "mlp.fc2"}  # and ends with
NORMS = (nn.LayerNorm, nn.RMSNorm, RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d)
BLOCK = re.compile(r"((layers|stages)\.\d+\.)?blocks\.\d+")
# Parts of a block that are two modules in some: the gate and the value of timm's SwiGLU make the hidden layer together.
HALVES = {"mlp.fc1": ("mlp.fc1_g", "mlp.fc1_x")}
# What no block of a ConvNeXt has, which has no attention and one norm: methods do there what remains of them.
NOT_IN_CONVNEXT = re.compile(r"attn(\..*)?|norm2")


def blocks(vit: nn.Module) -> dict[str, nn.Module]:
    """Every block by name, as they run: "blocks.3" in a ViT, "layers.2.blocks.3" in Swin, "stages..." in ConvNeXt."""
    return {name: module for name, module in vit.named_modules() if BLOCK.fullmatch(name)}


def block_sites(vit: nn.Module, parts: Iterable[str]) -> dict[str, nn.Module]:
    """The named modules of every block: {"blocks.0.attn.qkv": Linear, ...}; for some parts, its two halves.

    Raises:
        DoesNotFit: a block has one of them not, unless no ConvNeXt has.
    """
    parts = list(dict.fromkeys(parts))
    wanted = [part for part in parts if not (isinstance(vit, ConvNeXt) and NOT_IN_CONVNEXT.fullmatch(part))]
    if not wanted:
        raise DoesNotFit(f"no block of a {type(vit).__name__} has any of {', '.join(parts)}")
    found = {}
    for name, block in blocks(vit).items():
        for part in wanted:
            if not (inside := part_of(block, part)):
                raise DoesNotFit(f"{name} has no {part}; it has {', '.join(leaves(block))}")
            found |= {f"{name}.{own}": module for own, module in inside.items()}
    return found


def part_of(block: nn.Module, part: str) -> dict[str, nn.Module]:
    """The module that ``part`` names in a block, or its halves, by name; none if there is neither, or an Identity."""
    inside = {name: module for name, module in block.named_modules() if not isinstance(module, nn.Identity)}
    names = [part] if part in inside else HALVES.get(part, ())
    return {name: inside[name] for name in names if name in inside}


def leaves(block: nn.Module) -> list[str]:
    """Names of the modules with weights that a block is made of."""
    return [
        name
        for name, module in block.named_modules()
        if not any(True for _ in module.children()) and any(True for _ in module.parameters(recurse=False))
    ]


def branches(vit: nn.Module, parts: Iterable[str]) -> dict[str, nn.Module]:
    """The named branches of every block, in the order in which they run: {"blocks.0.attn": Attention, ...}."""
    return block_sites(vit, [part for part in BRANCHES if part in parts])


def rising(vit: nn.Module, highest: float) -> dict[str, float]:
    """A rate for every branch, rising over the blocks from 0 to ``highest``; branches whose rate is 0 are left out."""
    last = max(1, len(blocks(vit)) - 1)
    rates = {name: highest * i / last for i, name in enumerate(blocks(vit))}
    found = {site: rates[site.rsplit(".", 1)[0]] for site in branches(vit, BRANCHES)}
    return {site: rate for site, rate in found.items() if rate}


def last_linear(branch: nn.Module) -> nn.Linear:
    """The linear map that a branch ends with: attn.proj, mlp.fc2.

    Raises:
        DoesNotFit: it ends with a convolution, as in small ConvNeXts, whose channels do not come last.
    """
    last = branch.proj if hasattr(branch, "proj") else branch.fc2
    return require_linear(last, f"what a {type(branch).__name__} ends with here")


def require_linear(op: nn.Module, where: str) -> nn.Linear:
    """``op``; raises DoesNotFit if it is no linear map."""
    if not isinstance(op, nn.Linear):
        raise DoesNotFit(f"{where} is a {type(op).__name__}, not a linear map")
    return op


def final_norm(vit: nn.Module, pooled: str = "fc_norm") -> str:
    """The name of the last norm; ``pooled`` in a ViT that averages its tokens, where ``norm`` itself is empty."""
    if isinstance(vit, ConvNeXt):
        return "head.norm"
    return pooled if isinstance(getattr(vit, "norm", None), nn.Identity) else "norm"


def norm_parameters(vit: nn.Module) -> set[str]:
    """Names of every norm's parameters: before, in and after the blocks, those of queries and keys included.

    ConvNeXt V2's global response normalisation is none of them: it weighs channels by their size over the whole image.
    """
    norms = [(name, module) for name, module in vit.named_modules() if isinstance(module, NORMS)]
    return {f"{name}.{param}" for name, norm in norms for param, _ in norm.named_parameters(recurse=False)}


def put_beside(method: Method, vit: nn.Module, site: str, tap: nn.Module, reads: str) -> None:
    """Add what ``tap`` makes of the branch's input ("norm") or of the tokens before the branch's norm ("residual").

    Raises:
        DoesNotFit: "residual", and no norm stands before the branch.
    """
    block, part = site.rsplit(".", 1)
    if reads == "norm" or isinstance(vit.get_submodule(block), ResPostBlock):  # its norms come behind the branches
        method.beside(site, tap)
        return
    norm = f"{block}.{'norm1' if part == 'attn' else 'norm2'}"
    if norm not in dict(vit.named_modules()) or (part == "attn" and not isinstance(vit, VisionTransformer)):
        raise DoesNotFit(  # Swin's attention reads windows, the norm before it the whole map
            f"INPUT 'residual' does not work at {site} of a {type(vit).__name__}: use INPUT 'norm', or other SITES"
        )
    keep = Keep()
    method.before(norm, keep)
    method.beside(site, FromKept(keep, tap))


def inputs(text: str, sites: list[str]) -> dict[str, str]:
    """What a key INPUT says that each of ``sites`` reads: "norm" or "residual"."""
    names = text.split(",")
    return dict(zip(sites, names * len(sites) if len(names) == 1 else names, strict=True))


def input_problems(text: str, sites: list[str]) -> list[str]:
    """What is wrong with a key INPUT."""
    names = text.split(",")
    if set(names) <= {"norm", "residual"} and len(names) in (1, len(sites)):
        return []
    return [f"INPUT is {text!r}; known: 'norm', 'residual', and one for each of SITES, such as 'norm,residual'"]


def site_problems(sites: list[str]) -> list[str]:
    """What is wrong with a key SITES."""
    if sites and set(sites) <= set(BRANCHES):
        return []
    return [f"SITES is {sites}; choose from {', '.join(BRANCHES)}"]


def target_problems(targets: list, known: Iterable[str] = ()) -> list[str]:
    """What is wrong with a key TARGETS.

    Args:
        known: the only targets there are, where a method cannot adapt any module.
    """
    targets, choices = list(map(str, targets)), ", ".join(TARGETS)
    problems = []
    if known and (unknown := [target for target in targets if target not in known]):
        problems.append(f"TARGETS has {', '.join(unknown)}; known: {choices}")
    if len(set(targets)) < len(targets):
        problems.append(f"TARGETS names a target twice: {', '.join(targets)}")
    if not targets:
        problems.append(f"TARGETS is empty; choose from {choices}")
    if "attn.qkv" in targets and set(targets) & set(THIRDS):
        problems.append("TARGETS names attn.qkv and a part of it: choose one")
    return problems


def dropout_problems(dropout: float) -> list[str]:
    """What is wrong with a key DROPOUT."""
    return [] if 0 <= dropout < 1 else [f"DROPOUT is {dropout}; it must be in [0, 1)"]
