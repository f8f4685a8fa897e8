"""Published checkpoint files -> state dicts in timm's names. One function per file format; each takes the path.

Every function returns the encoder alone: old heads, projectors, momentum copies and text towers are dropped by name, so
that whatever else does not fit the architecture is reported by the strict load (build.load_weights).
"""

from pathlib import Path

import torch

from .tensors import StateDict, read_state

# timm name <- Google/JAX name inside one encoder block. Kernels are [in, out], or [D, heads, head dim] for q, k, v.
GOOGLE_BLOCK = {
    "norm1": "LayerNorm_0",
    "norm2": "LayerNorm_2",
    "attn.proj": "MultiHeadDotProductAttention_1/out",
    "mlp.fc1": "MlpBlock_3/Dense_0",
    "mlp.fc2": "MlpBlock_3/Dense_1",
}


def google(path: Path) -> StateDict:
    """Supervised ViT of Google's vision_transformer (.npz); ``head`` and ``pre_logits`` are dropped."""
    arrays = {name: tensor.float() for name, tensor in _drop(read_state(path), "head/", "pre_logits/").items()}
    state = {
        "cls_token": arrays.pop("cls"),
        "pos_embed": arrays.pop("Transformer/posembed_input/pos_embedding"),
        "patch_embed.proj.weight": arrays.pop("embedding/kernel").permute(3, 2, 0, 1),  # HWIO -> OIHW
        "patch_embed.proj.bias": arrays.pop("embedding/bias"),
        "norm.weight": arrays.pop("Transformer/encoder_norm/scale"),
        "norm.bias": arrays.pop("Transformer/encoder_norm/bias"),
    }
    depth = len({name.split("/")[1] for name in arrays if name.startswith("Transformer/encoderblock_")})
    for i in range(depth):
        state |= _google_block(arrays, f"Transformer/encoderblock_{i}", f"blocks.{i}")
    return {name: tensor.contiguous() for name, tensor in state.items()} | arrays


def _google_block(arrays: StateDict, theirs: str, ours: str) -> StateDict:
    """One block, taken out of ``arrays``."""
    state = {}
    for name, google_name in GOOGLE_BLOCK.items():
        prefix = f"{theirs}/{google_name}"
        if name.startswith("norm"):
            state[f"{ours}.{name}.weight"] = arrays.pop(f"{prefix}/scale")
        else:
            kernel = arrays.pop(f"{prefix}/kernel")
            state[f"{ours}.{name}.weight"] = kernel.reshape(-1, kernel.shape[-1]).T
        state[f"{ours}.{name}.bias"] = arrays.pop(f"{prefix}/bias")
    qkv = [f"{theirs}/MultiHeadDotProductAttention_1/{part}" for part in ("query", "key", "value")]
    state[f"{ours}.attn.qkv.weight"] = torch.cat([arrays.pop(f"{part}/kernel").flatten(1).T for part in qkv])
    state[f"{ours}.attn.qkv.bias"] = torch.cat([arrays.pop(f"{part}/bias").flatten() for part in qkv])
    return state


def mae(path: Path) -> StateDict:
    """MAE encoder. Its final norm is applied after average pooling, as FreqFiT does: timm's ``fc_norm``."""
    state = _drop(read_state(path, "model"), "head.", "decoder_", "mask_token")
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
    state = _strip(read_state(path, "state_dict"), "module.")
    if any(name.startswith("base_encoder.") for name in state):
        state = _strip({k: v for k, v in state.items() if k.startswith("base_encoder.")}, "base_encoder.")
    return _drop(state, "head.")


def read_clip(path: Path) -> StateDict:
    """All of an OpenAI CLIP file, in its own names and types: a TorchScript archive or a plain state dict."""
    state = read_state(path, "state_dict")
    if not any(name.startswith("visual.") for name in state):
        raise ValueError(f"{path} holds no CLIP image tower: no key starts with 'visual.'")
    return state


def clip(path: Path) -> StateDict:
    """Image tower of OpenAI's CLIP, features before the projection."""
    state = read_clip(path)
    state = {k: v.float() for k, v in _strip(state, "visual.", only=True).items()}
    renamed = {
        "cls_token": state.pop("class_embedding")[None, None],
        "pos_embed": state.pop("positional_embedding")[None],
        "patch_embed.proj.weight": state.pop("conv1.weight"),
    }
    del state["proj"]
    names = {
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
    for name, tensor in state.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    return renamed


def dino(path: Path) -> StateDict:
    """DINO: the backbone file, or a whole training checkpoint, of which the teacher's backbone is taken."""
    state = read_state(path, "teacher")
    if any(name.startswith("backbone.") for name in state):
        state = _strip(state, "backbone.", only=True)
    return _drop(state, "head.")


def dinov2(path: Path) -> StateDict:
    """DINOv2. With registers, timm adds the class token's position to the token itself: so do we."""
    state = _drop(read_state(path, "model"), "mask_token", "head.")
    if "register_tokens" in state:
        position = state["pos_embed"]
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + position[:, :1]
        state["pos_embed"] = position[:, 1:]
    return state


def _strip(state: StateDict, prefix: str, only: bool = False) -> StateDict:
    """Names without ``prefix``; those that do not have it stay, or go if ``only``."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) or not only}


def _drop(state: StateDict, *prefixes: str) -> StateDict:
    return {k: v for k, v in state.items() if not k.startswith(prefixes)}
