"""Google's files of JAX (.npz): its vision_transformer, and the image towers of big_vision's SigLIP and SigLIP 2.

Kernels are [in, out]; those of queries, keys and values [D, heads, head dim], and of what follows [heads, head dim, D].
"""

from pathlib import Path

import torch

from ..tensors import StateDict, read_state
from .names import drop

# timm name <- Google's name inside one encoder block, in vision_transformer and in big_vision.
OLD_BLOCK = {
    "norm1": "LayerNorm_0",
    "norm2": "LayerNorm_2",
    "attn": "MultiHeadDotProductAttention_1",
    "mlp": "MlpBlock_3",
}
BLOCK = {"norm1": "LayerNorm_0", "norm2": "LayerNorm_1", "attn": "MultiHeadDotProductAttention_0", "mlp": "MlpBlock_0"}
HEAD = {"norm": "LayerNorm_0", "attn": "MultiHeadDotProductAttention_0", "mlp": "MlpBlock_0"}
QKV = ("query", "key", "value")
IMAGE = "params/img/"
SCANNED = "Transformer/encoderblock/"


def google(path: Path) -> StateDict:
    """Supervised ViT of Google's vision_transformer; ``head`` and ``pre_logits`` are dropped."""
    arrays = {name: tensor.float() for name, tensor in drop(read_state(path), "head/", "pre_logits/").items()}
    state = {
        "cls_token": arrays.pop("cls"),
        "pos_embed": arrays.pop("Transformer/posembed_input/pos_embedding"),
        **_ends(arrays),
    }
    for i in range(_depth(arrays)):
        state |= _block(arrays, f"Transformer/encoderblock_{i}/", f"blocks.{i}.", OLD_BLOCK)
    return {name: tensor.contiguous() for name, tensor in state.items()} | arrays


def siglip(path: Path) -> StateDict:
    """Image tower of SigLIP or SigLIP 2 with its attention pooling. Its blocks are apart, or in one array (scanned)."""
    arrays = read_state(path, keep=lambda name: name.startswith(IMAGE))
    if not arrays:
        raise ValueError(f"{path} holds no image tower of big_vision: no array is in {IMAGE}")
    arrays = _unscanned({name.removeprefix(IMAGE): tensor.float() for name, tensor in arrays.items()})
    state = {"pos_embed": arrays.pop("pos_embedding"), **_ends(arrays)}
    for i in range(_depth(arrays)):
        state |= _block(arrays, f"Transformer/encoderblock_{i}/", f"blocks.{i}.", BLOCK)
    state["attn_pool.latent"] = arrays.pop("MAPHead_0/probe")
    state |= _block(arrays, "MAPHead_0/", "attn_pool.", HEAD)
    for kind in ("weight", "bias"):
        qkv = state.pop(f"attn_pool.attn.qkv.{kind}")
        dim = qkv.shape[0] // 3
        state[f"attn_pool.q.{kind}"], state[f"attn_pool.kv.{kind}"] = qkv[:dim], qkv[dim:]
        state[f"attn_pool.proj.{kind}"] = state.pop(f"attn_pool.attn.proj.{kind}")
    return {name: tensor.contiguous() for name, tensor in state.items()} | arrays


def _ends(arrays: StateDict) -> StateDict:
    """What comes before and after the blocks, taken out of ``arrays``."""
    return {
        "patch_embed.proj.weight": arrays.pop("embedding/kernel").permute(3, 2, 0, 1),  # HWIO -> OIHW
        "patch_embed.proj.bias": arrays.pop("embedding/bias"),
        "norm.weight": arrays.pop("Transformer/encoder_norm/scale"),
        "norm.bias": arrays.pop("Transformer/encoder_norm/bias"),
    }


def _depth(arrays: StateDict) -> int:
    return len({name.split("/")[1] for name in arrays if name.startswith("Transformer/encoderblock_")})


def _unscanned(arrays: StateDict) -> StateDict:
    """``encoderblock/x`` of shape (depth, ...) -> ``encoderblock_0/x``, ``encoderblock_1/x``, ..."""
    apart = {}
    for name, tensor in arrays.items():
        if name.startswith(SCANNED):
            rest = name.removeprefix(SCANNED)
            apart |= {f"Transformer/encoderblock_{i}/{rest}": block for i, block in enumerate(tensor)}
        else:
            apart[name] = tensor
    return apart


def _block(arrays: StateDict, theirs: str, ours: str, names: dict[str, str]) -> StateDict:
    """One block, or the pooling that is built like one, taken out of ``arrays``."""
    state = {}
    for norm in (name for name in names if name.startswith("norm")):
        state[f"{ours}{norm}.weight"] = arrays.pop(f"{theirs}{names[norm]}/scale")
        state[f"{ours}{norm}.bias"] = arrays.pop(f"{theirs}{names[norm]}/bias")
    linear = {f"mlp.fc{i + 1}": f"{names['mlp']}/Dense_{i}" for i in range(2)} | {"attn.proj": f"{names['attn']}/out"}
    for name, google_name in linear.items():
        kernel = arrays.pop(f"{theirs}{google_name}/kernel")
        state[f"{ours}{name}.weight"] = kernel.reshape(-1, kernel.shape[-1]).T
        state[f"{ours}{name}.bias"] = arrays.pop(f"{theirs}{google_name}/bias")
    qkv = [f"{theirs}{names['attn']}/{part}" for part in QKV]
    state[f"{ours}attn.qkv.weight"] = torch.cat([arrays.pop(f"{part}/kernel").flatten(1).T for part in qkv])
    state[f"{ours}attn.qkv.bias"] = torch.cat([arrays.pop(f"{part}/bias").flatten() for part in qkv])
    return state
