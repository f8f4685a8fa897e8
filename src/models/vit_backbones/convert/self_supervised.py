"""Self-supervised ViTs: MAE, MoCo v3, DINO, DINOv2, DINOv3."""

from pathlib import Path

import torch

from ..hugging_face.names import as_eva, in_timms_names, is_encoders
from ..tensors import StateDict, read_state
from .names import drop, replaced, strip


def mae(path: Path) -> StateDict:
    """MAE encoder. Its final norm is applied after average pooling, as FreqFiT does: timm's ``fc_norm``."""
    state = drop(read_state(path, "model"), "head.", "decoder_", "mask_token")
    return {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: t for name, t in state.items()}


def mae_fresh_norm(path: Path) -> StateDict:
    """MAE encoder as VPT loads it: the file's final norm is dropped and a fresh one, weight 1 and bias 0, is used."""
    state = mae(path)
    return state | {
        "fc_norm.weight": torch.ones_like(state["fc_norm.weight"]),
        "fc_norm.bias": torch.zeros_like(state["fc_norm.bias"]),
    }


def moco(path: Path) -> StateDict:
    """MoCo v3: the pre-training file (its base encoder) or the linear-probe file (all but the probe)."""
    state = strip(read_state(path, "state_dict"), "module.")
    if any(name.startswith("base_encoder.") for name in state):
        state = strip({k: v for k, v in state.items() if k.startswith("base_encoder.")}, "base_encoder.")
    return drop(state, "head.")


def dino(path: Path) -> StateDict:
    """DINO: the backbone file, or a whole training checkpoint, of which the teacher's backbone is taken."""
    state = read_state(path, "teacher")
    if any(name.startswith("backbone.") for name in state):
        state = strip(state, "backbone.", only=True)
    return drop(state, "head.")


def dinov2(path: Path) -> StateDict:
    """DINOv2. With registers, timm adds the class token's position to the token itself: so do we."""
    names = {".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}  # the giant's gated MLP
    state = drop(read_state(path, "model"), "mask_token", "head.")
    state = {replaced(name, names): tensor for name, tensor in state.items()}
    if "register_tokens" in state:
        position = state["pos_embed"]
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + position[:, :1]
        state["pos_embed"] = position[:, 1:]
    return state


DINOV3 = {
    "storage_tokens": "reg_token",
    ".ls1.gamma": ".gamma_1",
    ".ls2.gamma": ".gamma_2",
    ".mlp.w1.": ".mlp.fc1_g.",
    ".mlp.w2.": ".mlp.fc1_x.",
    ".mlp.w3.": ".mlp.fc2.",
}


def dinov3(path: Path) -> StateDict:
    """DINOv3's ViT, in Meta's names or in those of transformers.

    Biases of keys are masked in Meta's files, and timm's network has none. The mask token, the norm of local crops and
    the periods of the rotations, which are computed, are dropped.
    """
    state = read_state(path)
    if "embeddings.cls_token" in state:
        gated = any(".mlp.gate_proj." in name for name in state)
        return as_eva(in_timms_names({k: v for k, v in state.items() if is_encoders(k)}), gated)
    state = drop(state, "mask_token", "local_cls_norm.", "rope_embed.", "head.")
    renamed = {}
    for name, tensor in state.items():
        if name.endswith(".attn.qkv.bias_mask"):
            continue
        if name.endswith(".attn.qkv.bias"):
            mask = state.get(f"{name}_mask", torch.ones_like(tensor))
            query, key, value = (tensor * mask).chunk(3)
            if key.any():
                raise ValueError(f"{path}: {name} has a bias of keys, and timm's network has none")
            block = name.removesuffix("qkv.bias")
            renamed |= {f"{block}q_bias": query, f"{block}v_bias": value}
        else:
            renamed[replaced(name, DINOV3)] = tensor
    return renamed
