"""Image towers of models that learned from pairs of images and texts: CLIP, MetaCLIP, Perception Encoder."""

from pathlib import Path

from timm.models.eva import checkpoint_filter_fn

from ..tensors import StateDict, read_state, single
from .names import replaced, strip

CLIP = {
    "transformer.resblocks.": "blocks.",
    "ln_pre.": "norm_pre.",
    "ln_post.": "norm.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}


def read_clip(path: Path) -> StateDict:
    """All of a CLIP file, in its own names and types: OpenAI's TorchScript archive, or a state dict as of open_clip."""
    state = strip(read_state(path, "state_dict"), "module.")
    if not any(name.startswith("visual.") for name in state):
        raise ValueError(f"{path} holds no CLIP image tower: no key starts with 'visual.'")
    return state


def clip(path: Path) -> StateDict:
    """Image tower of OpenAI's CLIP or of MetaCLIP, features before the projection."""
    state = {k: single(v) for k, v in strip(read_clip(path), "visual.", only=True).items()}
    renamed = {
        "cls_token": state.pop("class_embedding")[None, None],
        "pos_embed": state.pop("positional_embedding")[None],
        "patch_embed.proj.weight": state.pop("conv1.weight"),
    }
    del state["proj"]
    return renamed | {replaced(name, CLIP): tensor for name, tensor in state.items()}


def perception(path: Path) -> StateDict:
    """Image tower of Meta's Perception Encoder, before the projection; its rotations are computed, not read.

    Core's files hold it beside the text tower, as "visual.*"; those of spatial and lang may hold it alone.
    """
    state = strip(read_state(path, "state_dict"), "module.")
    if any(name.startswith("visual.") for name in state):
        state = strip(state, "visual.", only=True)
    state = {name: single(tensor) for name, tensor in state.items() if "rope." not in name and name != "proj"}
    return checkpoint_filter_fn(state, None)
