"""transformers' names of an image tower's tensors -> timm's. What is not translated keeps its name, and the strict load
reports it."""

import re

import torch
from torch import Tensor

from ..tensors import StateDict, single

# What a checkpoint holds beside the encoder: other towers, heads, and what only pre-training uses.
BESIDE = re.compile(
    r"text_model\..*|(text|visual)_projection\.weight|logit_(scale|bias)"
    r"|(cls_|distillation_)?classifier\..*|(lm_)?head\.(weight|bias)|pooler\.dense\..*|decoder\..*"
    r"|embeddings\.(mask_token|position_ids)"
)
# What may stand before an encoder's names, in a model with a head or with a second tower.
TOWER = re.compile(r"(vit|ijepa|deit|dinov2|dinov2_with_registers|dinov3_vit|vision_model)\.")
BLOCK = re.compile(r"(?:encoder\.|model\.)?layers?\.(\d+)\.(.+)\.(weight|bias|lambda1)")

# The parts of a block under the names that files have, and under those of transformers 5's own modules.
IN_BLOCK = {
    "layernorm_before": "norm1", "layer_norm1": "norm1", "norm1": "norm1",
    "layernorm_after": "norm2", "layer_norm2": "norm2", "norm2": "norm2",
    "attention.attention.query": "attn.q", "attention.q_proj": "attn.q", "self_attn.q_proj": "attn.q",
    "attention.attention.key": "attn.k", "attention.k_proj": "attn.k", "self_attn.k_proj": "attn.k",
    "attention.attention.value": "attn.v", "attention.v_proj": "attn.v", "self_attn.v_proj": "attn.v",
    "attention.output.dense": "attn.proj", "attention.o_proj": "attn.proj", "self_attn.out_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1", "mlp.fc1": "mlp.fc1", "mlp.weights_in": "mlp.fc1",
    "output.dense": "mlp.fc2", "mlp.fc2": "mlp.fc2", "mlp.weights_out": "mlp.fc2", "mlp.down_proj": "mlp.fc2",
    "mlp.gate_proj": "mlp.fc1_g", "mlp.up_proj": "mlp.fc1_x",
    "layer_scale1": "ls1", "layer_scale2": "ls2",
}  # fmt: skip
AROUND = {
    "embeddings.cls_token": "cls_token",
    "embeddings.class_embedding": "cls_token",
    "embeddings.distillation_token": "reg_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.patch_embeddings.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.patch_embedding.bias": "patch_embed.proj.bias",
    "head.probe": "attn_pool.latent",
    "head.attention.in_proj_weight": "attn_pool.in_proj.weight",
    "head.attention.in_proj_bias": "attn_pool.in_proj.bias",
}
AROUND_PARTS = {
    "layernorm": "norm",
    "norm": "norm",
    "pre_layrnorm": "norm_pre",
    "post_layernorm": "norm",
    "head.attention.out_proj": "attn_pool.proj",
    "head.layernorm": "attn_pool.norm",
    "head.mlp.fc1": "attn_pool.mlp.fc1",
    "head.mlp.fc2": "attn_pool.mlp.fc2",
}
AROUND |= {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in AROUND_PARTS.items() for kind in ("weight", "bias")}


def is_encoders(name: str) -> bool:
    """Whether a tensor belongs to the image encoder."""
    return not BESIDE.fullmatch(name) and not BESIDE.fullmatch(TOWER.sub("", name, count=1))


def in_timms_names(state: StateDict) -> StateDict:
    """An encoder's tensors under the names that they have in timm's VisionTransformer, in single precision."""
    renamed = {_renamed(name): single(tensor) for name, tensor in state.items()}
    for name in ("cls_token", "pos_embed"):
        if name in renamed:  # CLIP's and SigLIP's have no dimension for a batch
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    for name in [name for name in renamed if name.endswith((".attn.q.weight", ".attn.q.bias"))]:
        _join(renamed, name, ".q.", ".qkv.", "qkv")
    for kind in ("weight", "bias"):
        if (packed := renamed.pop(f"attn_pool.in_proj.{kind}", None)) is not None:
            dim = packed.shape[0] // 3
            renamed[f"attn_pool.q.{kind}"], renamed[f"attn_pool.kv.{kind}"] = packed[:dim], packed[dim:]
    return renamed


def _renamed(name: str) -> str:
    theirs = TOWER.sub("", name, count=1) if TOWER.match(name) else name
    if match := BLOCK.fullmatch(theirs):
        block, part, kind = match.groups()
        return f"blocks.{block}.{IN_BLOCK[part]}.{kind.replace('lambda1', 'gamma')}" if part in IN_BLOCK else name
    return AROUND.get(theirs, name)


def _join(state: StateDict, name: str, part: str, whole: str, letters: str) -> None:
    """Put the tensors ``...q...``, ``...k...``, ``...v...`` together, if all are there."""
    names = [name.replace(part, f".{letter}.") for letter in letters]
    if all(other in state for other in names):
        state[name.replace(part, whole)] = torch.cat([state.pop(other) for other in names])


def norm_after_pool(state: StateDict) -> StateDict:
    """timm's names where the last norm follows the average of the patches."""
    return {re.sub(r"^norm\.", "fc_norm.", name): tensor for name, tensor in in_timms_names(state).items()}


def gates_packed(state: StateDict) -> StateDict:
    """Gate and value of a gated MLP as the one map of timm's SwiGLUPacked, the gate first."""
    gates = {name for name in state if ".mlp.fc1_g." in name and name.replace("_g.", "_x.") in state}
    rest = {name: tensor for name, tensor in state.items() if name.replace("_x.", "_g.") not in gates}
    joined = {name.replace("_g.", "."): torch.cat([state[name], state[name.replace("_g.", "_x.")]]) for name in gates}
    return rest | joined


def position_in_token(state: StateDict) -> StateDict:
    """The class token's position added to the token itself: timm's register models have positions of patches alone."""
    if not {"pos_embed", "cls_token"} <= state.keys():
        return state
    position: Tensor = state["pos_embed"]
    return state | {"cls_token": state["cls_token"] + position[:, :1], "pos_embed": position[:, 1:]}


def as_eva(state: StateDict, gated: bool) -> StateDict:
    """timm's VisionTransformer names -> its Eva's: DINOv3."""
    named = {}
    for name, tensor in state.items():
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)
        name = re.sub(r"\.attn\.([qv])\.bias$", r".attn.\1_bias", name)  # of queries and values, without one of keys
        name = name if gated else name.replace(".mlp.fc1_x.", ".mlp.fc1.")
        if tensor.numel():  # registers may be none
            named[name] = tensor
    return named
