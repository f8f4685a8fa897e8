"""Where methods act: the blocks of a network, their parts by name, its norms, and what may be wrong with such names."""

import re
from collections.abc import Iterable

from timm.layers import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import nn

from ..configs.keys import Key, some_of
from .families import family_of
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


def blocks(vit: nn.Module) -> dict[str, nn.Module]:
    """Every block by name, as they run: "blocks.3" in a ViT, "layers.2.blocks.3" in Swin, "stages..." in ConvNeXt."""
    pattern = family_of(vit).block
    return {name: module for name, module in vit.named_modules() if re.fullmatch(pattern, name)}


def block_sites(vit: nn.Module, roles: Iterable[str]) -> dict[str, nn.Module]:
    """The modules of every block that play these roles: {"blocks.0.attn.qkv": Linear, ...}.

    Raises:
        DoesNotFit: a block has nothing in one of the roles, unless no block of this family has.
    """
    family, roles = family_of(vit), list(dict.fromkeys(roles))
    wanted = [role for role in roles if not family.lacks(role)]
    if not wanted:
        raise DoesNotFit(f"no block of a {type(vit).__name__} has any of {', '.join(roles)}")
    sites = {}
    for name, block in blocks(vit).items():
        for role in wanted:
            if not (inside := family.part(block, role)):
                raise DoesNotFit(f"{name} has no {role}; it has {', '.join(leaves(block))}")
            sites |= {f"{name}.{own}": module for own, module in inside.items()}
    return sites


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
    sites = {site: rates[site.rsplit(".", 1)[0]] for site in branches(vit, BRANCHES)}
    return {site: rate for site, rate in sites.items() if rate}


def last_linear(branch: nn.Module) -> nn.Linear:
    """The linear map that a branch ends with: attn.proj, mlp.fc2.

    Raises:
        DoesNotFit: it ends with a convolution, as in small ConvNeXts, whose channels do not come last.
    """
    last = branch.proj if hasattr(branch, "proj") else branch.fc2
    return require_linear(last, f"the last map of a {type(branch).__name__}")


def require_linear(op: nn.Module, where: str) -> nn.Linear:
    """``op``; raises DoesNotFit unless it is a linear map."""
    if not isinstance(op, nn.Linear):
        raise DoesNotFit(f"{where} is a {type(op).__name__}, not a linear map")
    return op


def put_beside(method: Method, vit: nn.Module, site: str, tap: nn.Module, reads: str) -> None:
    """Add what ``tap`` makes of the branch's input ("norm") or of the tokens before the branch's norm ("residual").

    Raises:
        DoesNotFit: "residual", and no norm stands before the branch.
    """
    entrance = site if reads == "norm" else family_of(vit).entrance(vit, site)
    if not entrance:
        raise DoesNotFit(
            f"INPUT 'residual' does not work at {site} of a {type(vit).__name__}: use INPUT 'norm', or other SITES"
        )
    if entrance == site:
        method.beside(site, tap)
        return
    keep = Keep()
    method.before(entrance, keep)
    method.beside(site, FromKept(keep, tap))


def norm_parameters(vit: nn.Module) -> set[str]:
    """Names of every norm's parameters: before, in and after the blocks, those of queries and keys included.

    ConvNeXt V2's global response normalisation does not count: it weighs channels by their size over the whole image.
    """
    norms = [(name, module) for name, module in vit.named_modules() if isinstance(module, NORMS)]
    return {f"{name}.{param}" for name, norm in norms for param, _ in norm.named_parameters(recurse=False)}


def inputs(text: str, sites: list[str]) -> dict[str, str]:
    """What each of ``sites`` reads according to a key INPUT: "norm" or "residual"."""
    names = text.split(",")
    return dict(zip(sites, names * len(sites) if len(names) == 1 else names, strict=True))


def input_problems(text: str, sites: list[str]) -> list[str]:
    """What is wrong with a key INPUT."""
    names = text.split(",")
    if set(names) <= {"norm", "residual"} and len(names) in (1, len(sites)):
        return []
    return [f"INPUT is {text!r}; known: 'norm', 'residual', and one for each of SITES, such as 'norm,residual'"]


def branch_words(parts: Iterable[str]) -> str:
    """A key SITES in words: "attention and MLP"."""
    return " and ".join({"attn": "attention", "mlp": "MLP"}[part] for part in BRANCHES if part in parts)


def targets(default: Iterable[str], choices: Iterable[str] = TARGETS) -> Key:
    """A key TARGETS: linear maps of every block."""
    return some_of(list(default), choices, filled=True, distinct=True)


def target_problems(names: list[str]) -> list[str]:
    """What is wrong with a key TARGETS as a whole."""
    if "attn.qkv" in names and set(names) & set(THIRDS):
        return ["TARGETS names attn.qkv and a part of it: choose one"]
    return []
