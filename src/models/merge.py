"""Fold taps into the weights they act on, giving a plain timm state dict.

No method writes merge code. A tapped operation that is still affine is *measured* (affine.py). LoRA, SSF, RepAdapter,
FacT and RLRR all fold this way. New blocks (Block Expansion) become blocks of a deeper ViT.

A shift goes into the bias at its site. Where there is none, it goes on to what reads the site: after an RMS norm to the
branch's first maps, after the last norm to the head. Another operation without a bias gets one: ``load_merged`` makes
room for it in a plain network.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from .affine import measure
from .families import UNKNOWN, family_of
from .method import Method, wires
from .sites import BRANCHES, branches, first_maps
from .taps import Keep
from .vit_models import TunedViT

IDLE = (nn.Dropout, DropPath, nn.Identity, Keep)  # taps that change nothing in eval mode


@dataclass
class Merged:
    """The state dict of a plain network; ``shift`` (D,) is to be added to its pooled features, if there is one."""

    state: dict[str, Tensor]
    shift: Tensor | None = None


def merged_state_dict(model: TunedViT) -> dict[str, Tensor]:
    """timm state dict of a ViT without taps that computes what ``model.vit`` computes with them. Call in eval mode.

    With Block Expansion that ViT is deeper: its ``depth`` has one more for every new block. Where a map has no bias to
    take up a shift, the state dict has one, which ``load_merged`` loads.

    Raises:
        ValueError: a tap is not affine, or no weight at its site can take it up, or a method adds features.
    """
    found = merged(model)
    if found.shift is not None:
        raise ValueError(
            f"{'+'.join(model.methods)} cannot be merged into the backbone alone: its last norm has no bias to take up "
            "the shift, only the head has one"
        )
    return found.state


@torch.no_grad()
def merged(model: TunedViT) -> Merged:
    """As ``merged_state_dict``, also where the head must take up a shift."""
    vit = model.vit
    state, shifts = {k: v.clone() for k, v in vit.state_dict().items()}, {}
    for name, method in model.methods.items():
        if type(method).features is not Method.features:
            raise ValueError(f"{name} cannot be merged: it changes the pooled features, not the network")
    at, new_blocks = defaultdict(list), {}
    for name, site, verb, tap in wires(model.methods):
        if verb == "after" and getattr(tap, "takes_context", False):
            new_blocks[site] = tap.state_dict()
        elif not isinstance(tap, IDLE):
            at[site].append((name, verb, tap))
    for site, taps in at.items():
        names = "+".join(dict.fromkeys(name for name, _, _ in taps))
        found = measure(vit.get_submodule(site), taps, f"{names} cannot be merged: {site}")
        bias = found.pop("bias")
        state |= {f"{site}.{name}": tensor for name, tensor in found.items()}
        if f"{site}.bias" in state:
            state[f"{site}.bias"] = bias
        elif bias.any():
            shifts[site] = bias
    if positioned := _before_positions(vit):
        state["pos_embed"][:, -vit.patch_embed.num_patches :] += shifts.pop(positioned, 0)
    norms = {}
    for site, bias in shifts.items():
        if _takes_bias(vit.get_submodule(site)):
            _add(state, site, bias)
        else:
            norms[site] = bias
    last, names = family_of(vit).final_norm(vit, "fc_norm"), "+".join(model.methods)
    for site in norms.keys() - {last}:
        if not (readers := _readers(vit, site)):
            raise ValueError(f"{names} cannot be merged: {site} has no bias to take up the shift")
        for reader in readers:
            _add(state, reader, state[f"{reader}.weight"] @ norms[site])
    shift = norms.get(last)
    if shift is not None and not _shift_passes(vit, last):
        raise ValueError(f"{names} cannot be merged: {last} has no bias to take up the shift")
    state |= _under_other_names(vit, state)
    return Merged(_deeper(state, new_blocks) if new_blocks else state, shift)


def _add(state: dict[str, Tensor], site: str, bias: Tensor) -> None:
    """Add to the bias of a site, or make one."""
    name = f"{site}.bias"
    state[name] = state[name] + bias if name in state else bias


def _under_other_names(vit: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of modules that stand in several places, under all names but the first, which taps are at."""
    first, found = {}, {}
    for name, module in vit.named_modules(remove_duplicate=False):
        own = first.setdefault(module, name)
        if own != name:
            inside = (key for key in state if key.startswith(f"{own}."))
            found |= {f"{name}{key.removeprefix(own)}": state[key] for key in inside}
    return found


def _takes_bias(op: nn.Module) -> bool:
    """Whether an operation computes with a bias as soon as it has one: all but RMS norms."""
    return "bias" in op._parameters


def _readers(vit: nn.Module, norm: str) -> list[str]:
    """The linear maps that read what a norm before a branch returns; none where it stands elsewhere."""
    family = family_of(vit)
    if family is UNKNOWN:
        return []
    if names := family.readers(vit, norm):
        return names
    found = [site for site in branches(vit, BRANCHES) if family.entrance(vit, site) == norm]
    return [name for site in found for name in first_maps(vit, site)]


def _shift_passes(vit: nn.Module, norm: str) -> bool:
    """Whether a shift of what the last norm returns is the same shift of the pooled features."""
    return norm != "norm" or (vit.global_pool in ("token", "avg") and isinstance(vit.fc_norm, nn.Identity))


def load_merged(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what ``merged_state_dict`` gave into a plain timm network, which gets the biases that it lacks.

    Raises:
        RuntimeError: tensors are missing, too many or of other shapes, as in ``load_state_dict``.
    """
    family_of(network).prepare(network)  # timm's attention adds such a bias only where it calls the map
    for name in added_biases(network, state):
        op = network.get_submodule(name.rpartition(".")[0])
        op.bias = nn.Parameter(torch.zeros_like(state[name], dtype=op.weight.dtype, device=op.weight.device))
    network.load_state_dict(state)


def added_biases(network: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Names of the biases in a state dict that a network does not have, and computes with once it has."""
    known = dict(network.named_modules())
    new = [name for name in state.keys() - network.state_dict().keys() if name.endswith(".bias")]
    return sorted(name for name in new if _takes_bias(known.get(name.rpartition(".")[0], nn.Identity())))


def _deeper(state: dict[str, Tensor], new_blocks: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """``state`` with each new block after its site ("blocks.3"), and all blocks numbered as they run."""
    expanded = sorted(int(site.split(".")[1]) for site in new_blocks)
    deeper = {}
    for name, tensor in state.items():
        if block := re.match(r"blocks\.(\d+)\.", name):
            number = int(block[1])
            name = f"blocks.{number + sum(i < number for i in expanded)}.{name[block.end() :]}"
        deeper[name] = tensor
    for count, i in enumerate(expanded, start=1):
        deeper |= {f"blocks.{i + count}.{name}": tensor.clone() for name, tensor in new_blocks[f"blocks.{i}"].items()}
    if "rope.freqs" in deeper:  # mixed rotary positions: each block's own, (2, depth, ...)
        order = sorted([*range(deeper["rope.freqs"].shape[1]), *expanded])
        deeper["rope.freqs"] = deeper["rope.freqs"][:, order]
    return deeper


def _before_positions(vit: nn.Module) -> str:
    """The operation to whose output position embeddings, one for each patch, are added; "" if there is none."""
    if not family_of(vit).sequence or getattr(vit, "pos_embed", None) is None:
        return ""
    norm = getattr(vit.patch_embed, "norm", nn.Identity())
    return "patch_embed.proj" if isinstance(norm, nn.Identity) else "patch_embed.norm"
