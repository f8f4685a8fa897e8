"""Where methods act: the blocks of a network, their parts by name, its norms, and what may be wrong with such names."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import nn

from ..configs.keys import Key, some_of
from ..utils.text import a_kind, with_article
from .called import called
from .families import FAMILIES, UNKNOWN, family_of
from .families.base import NORMS, THIRDS
from .families.names import is_inside, matching
from .families.stages import Grid, Tokens
from .method import DoesNotFit, Method
from .taps import FromKept, Keep

BRANCHES = ("attn", "mlp")
LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # every linear map of a block
APART = (*THIRDS, "attn.proj", "mlp.fc1", "mlp.fc2")  # the same linear maps, with q, k and v apart
TARGETS = (*THIRDS, *LINEAR)  # what a method may adapt
FIRST = {"attn": "attn.qkv", "mlp": "mlp.fc1"}  # the linear map that each branch begins with
LAST = {"attn": "attn.proj", "mlp": "mlp.fc2"}  # and ends with


class Map(NamedTuple):
    """A linear map (or convolution) of the network, and which of its output channels play the wanted roles.

    ``rows``: for each part, such as "q", its channels, in order, where others share the map, as in a fused attn.qkv;
    empty where all of it is meant.
    """

    op: nn.Module
    rows: dict[str, slice]


def blocks(vit: nn.Module) -> dict[str, nn.Module]:
    """Every block by name, as they run: "blocks.3" in a ViT, "layers.2.blocks.3" in Swin, "stages..." in ConvNeXt.

    Raises:
        DoesNotFit: the network is of no known family.
    """
    family = family_of(vit)
    if family is UNKNOWN:
        raise DoesNotFit(f"its blocks are not known: {unknown_network(vit)}")
    return {name: module for name, module in vit.named_modules() if re.fullmatch(family.block, name)}


def grids(vit: nn.Module, tokens: Tokens | None, fixed: bool = True) -> list[Grid]:
    """What enters every block, and what leaves the last one.

    Args:
        fixed: rows and columns count, which are not known where a network takes images of any size.

    Raises:
        DoesNotFit: it is no grid, or not ``fixed``.
    """
    if tokens is not None:
        return [Grid(tokens.prefix + p, tokens.rows, tokens.cols, tokens.dim) for p in tokens.prompts]
    family = family_of(vit)
    if fixed and family.any_size:
        raise DoesNotFit(
            f"it is made for one grid of patches, and {with_article(family.title)} takes images of any size"
        )
    if not family.channels:
        raise DoesNotFit(f"{with_article(family.title)} has no grid of patches between its blocks")
    calls, names = called(vit), list(blocks(vit))
    shapes = [*(calls[name].input for name in names), calls[names[-1]].output]
    maps = (shape[1:] if family.channels == "last" else (*shape[2:], shape[1]) for shape in shapes)
    return [Grid(0, *shape, family.channels) for shape in maps]


def unknown_network(vit: nn.Module) -> str:
    """What to say where a method needs more than the linear maps, norms and biases of a network of no family."""
    known = ", ".join(dict.fromkeys(family.network.__name__ for family in FAMILIES))
    return f"{a_kind(vit)} is none of the networks whose parts are known ({known})"


def block_sites(vit: nn.Module, roles: Iterable[str]) -> dict[str, nn.Module]:
    """The modules of every block that play these roles: {"blocks.0.attn.qkv": Linear, ...}.

    Raises:
        DoesNotFit: a block has nothing in one of the roles, unless no block of this family has.
    """
    found = _in_blocks(vit, roles, lambda family, block, role: family.part(block, role).items())
    return {f"{name}.{own}": module for name, _, (own, module) in found}


def linear_maps(vit: nn.Module, roles: Iterable[str]) -> dict[str, Map]:
    """The linear maps of every block that play these roles, by site; see ``maps``.

    Raises:
        DoesNotFit: as ``block_sites``, or what plays a role is no linear map.
    """
    found = maps(vit, roles)
    for site, own in found.items():
        require_linear(own.op, site)
    return found


def maps(vit: nn.Module, roles: Iterable[str]) -> dict[str, Map]:
    """What plays these roles in every block, by site; where q, k or v are wanted, sites of attn.qkv come first.

    A network of no known family has no roles, only linear maps: all of them, where all LINEAR roles are wanted.

    Raises:
        DoesNotFit: as ``block_sites``.
    """
    roles = sorted(roles, key=lambda role: THIRDS.index(role) if role in THIRDS else len(THIRDS))
    if family_of(vit) is UNKNOWN:
        return {site: Map(op, {}) for site, op in _every_linear_map(vit, roles).items()}
    found: dict[str, Map] = {}
    for name, role, rows in _in_blocks(vit, roles, lambda family, block, role: family.rows(block, role)):
        own = found.setdefault(f"{name}.{rows.name}", Map(rows.module, {}))
        if rows.count is not None:
            own.rows[role.rpartition(".")[2]] = slice(rows.start, rows.start + rows.count)
    ordered = {site: sorted(own.rows.items(), key=lambda item: item[1].start) for site, own in found.items()}
    return {site: Map(own.op, dict(ordered[site])) for site, own in found.items()}


def layout(rows: dict[str, slice], outputs: int) -> list[tuple[str, int]]:
    """(Part, its number of channels) in order, for all ``outputs`` of a map; "" for channels of no part."""
    found, at = [], 0
    for part, where in rows.items():
        found += [("", where.start - at)] * (where.start > at) + [(part, where.stop - where.start)]
        at = where.stop
    return found + [("", outputs - at)] * (outputs > at)


def _in_blocks(vit: nn.Module, roles: Iterable[str], parts: Callable) -> Iterator[tuple[str, str, Any]]:
    """(block, role, part) for all ``parts`` that play the roles in every block.

    Raises:
        DoesNotFit: see ``block_sites``.
    """
    family, roles = family_of(vit), list(dict.fromkeys(roles))
    wanted = [role for role in roles if not family.lacks(role)]
    if not wanted:
        raise DoesNotFit(f"no block of {a_kind(vit)} has any of {', '.join(roles)}")
    found = False
    for name, block in blocks(vit).items():
        if unknown := family.unknown(block):
            raise DoesNotFit(
                f"{name} has {', '.join(unknown)}, of which nothing is known in {with_article(family.title)}"
            )
        for role in wanted:
            inside = list(parts(family, block, role))
            if not inside and not family.may_lack(role):
                raise DoesNotFit(f"{name} has no {role}; it has {', '.join(leaves(block))}")
            found = found or bool(inside)
            yield from ((name, role, part) for part in inside)
    if not found:
        raise DoesNotFit(f"no block of this {type(vit).__name__} has any of {', '.join(roles)}")


def _every_linear_map(vit: nn.Module, roles: list[str]) -> dict[str, nn.Module]:
    """Those of a network of no family, which only all of LINEAR together can mean."""
    maps = UNKNOWN.linear_maps(vit)
    if not any(set(every) <= set(roles) for every in (APART, LINEAR)):
        raise DoesNotFit(f"it has linear maps, but none is known as {', '.join(roles)}: {unknown_network(vit)}")
    if not maps:
        raise DoesNotFit(f"{a_kind(vit)} has no linear map")
    return maps


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
    sites = {site: rates[block_of(vit, site)] for site in branches(vit, BRANCHES)}
    return {site: rate for site, rate in sites.items() if rate}


def last_linear(vit: nn.Module, site: str) -> nn.Linear:
    """The linear map that a branch ends with: attn.proj, mlp.fc2.

    Raises:
        DoesNotFit: it ends with a convolution, as in small ConvNeXts, whose channels do not come last.
    """
    name = block_of(vit, site)
    op = family_of(vit).last(vit.get_submodule(name), own_name(vit, site))
    return require_linear(op, f"the last map of {site}")


def block_of(vit: nn.Module, site: str) -> str:
    """The block that a site is in: "blocks.3" of "blocks.3.attn.qkv"."""
    return next(name for name in blocks(vit) if is_inside(site, name))


def own_name(vit: nn.Module, site: str) -> str:
    """A site's name in its block; the whole name in a network of no known family."""
    return site if family_of(vit) is UNKNOWN else site.removeprefix(f"{block_of(vit, site)}.")


def branch_of(vit: nn.Module, site: str) -> str:
    """What a branch is, "attn" or "mlp": the site may be "blocks.0.attn_block.attn"."""
    return next(b for b in BRANCHES if matching(family_of(vit).branches(b), [own_name(vit, site)]))


def exit_of(vit: nn.Module, site: str) -> str:
    """The site that returns what a branch adds to its tokens, and nothing else."""
    name = block_of(vit, site)
    return f"{name}.{family_of(vit).exit(vit.get_submodule(name), own_name(vit, site))}"


def first_maps(vit: nn.Module, site: str) -> dict[str, nn.Linear]:
    """The linear maps that read what enters a branch, by site: a fused attn.qkv, or q, k and v; a gate too.

    Raises:
        DoesNotFit: there is none, or it is a convolution.
    """
    name, role = block_of(vit, site), FIRST[branch_of(vit, site)]
    family, block = family_of(vit), vit.get_submodule(name)
    found = {**family.part(block, role), **family.part(block, "attn.gate")}
    inside = {f"{name}.{own}": op for own, op in found.items() if is_inside(f"{name}.{own}", site)}
    if not inside:
        raise DoesNotFit(f"it has no {role} in {site}")
    return {own: require_linear(op, own) for own, op in inside.items()}


def require_linear(op: nn.Module, where: str) -> nn.Linear:
    """``op``; raises DoesNotFit unless it is a linear map."""
    if not isinstance(op, nn.Linear):
        raise DoesNotFit(f"{where} is {a_kind(op)}, not a linear map")
    return op


def put_beside(method: Method, vit: nn.Module, site: str, tap: nn.Module, reads: str) -> None:
    """Add what ``tap`` makes of the branch's input ("norm") or of the tokens before the branch's norm ("residual").

    Raises:
        DoesNotFit: "residual", and no norm stands before the branch.
    """
    calls = called(vit)
    if site in calls and calls[site].input != calls[site].output:
        raise DoesNotFit(f"{site} does not return tokens of the shape that it reads: a path beside it would not fit")
    entrance = site if reads == "norm" else family_of(vit).entrance(vit, site)
    if not entrance or calls.get(entrance, (None,))[0] != calls.get(site, (None,))[0]:
        raise DoesNotFit(f"INPUT 'residual' does not work at {site} of {a_kind(vit)}: use INPUT 'norm', or other SITES")
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
