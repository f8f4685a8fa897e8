"""The kinds of transformers checkpoints that are read, and the network of timm that each is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..backbone import HALF, IMAGENET, OPENAI, MeanStd
from ..tensors import StateDict
from . import names
from .config import Values, ratio

WIDEST, DEEPEST, LARGEST = 2**16, 2**10, 2**14  # channels, blocks, pixels: far beyond what there is

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

_VIT = dict(
    hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, hidden_act="gelu",
    layer_norm_eps=1e-12, image_size=224, patch_size=16, num_channels=3, qkv_bias=True,
)  # fmt: skip
_DINOV2 = _VIT | dict(mlp_ratio=4, layer_norm_eps=1e-6, patch_size=14, use_swiglu_ffn=False)
_CLIP = _VIT | dict(hidden_act="quick_gelu", layer_norm_eps=1e-5, patch_size=32)
_SIGLIP = _VIT | dict(hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, vision_use_head=True)
_DINOV3 = _VIT | dict(
    hidden_size=384, intermediate_size=1536, num_attention_heads=6, layer_norm_eps=1e-5, rope_theta=100.0,
    query_bias=True, key_bias=False, value_bias=True, proj_bias=True, mlp_bias=True, use_gated_mlp=False,
    num_register_tokens=0,
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """timm's architecture, its arguments, what it pools, and how its tensors are named."""

    arch: str
    arguments: dict
    convert: Callable[[StateDict], StateDict] = names.in_timms_names
    pool: str = "token"
    norm_of_all: bool = False  # see Backbone


@dataclass(frozen=True)
class Kind:
    """A model_type of transformers."""

    network: Callable[[Values], Network]
    defaults: dict[str, Any]  # of its configuration class
    mean_std: MeanStd = field(
        default=HALF
    )  # of its published checkpoints, for folders without preprocessor_config.json
    interpolation: str = "bicubic"


def _sizes(values: Values) -> dict:
    """The arguments that every network here has."""
    values.must_be("num_channels", 3, "images here are RGB")
    dim = values.whole("hidden_size", 1, WIDEST)
    heads = values.whole("num_attention_heads", 1, dim)
    if dim % heads:
        raise values.refuse("num_attention_heads", f"by which hidden_size {dim} is not divisible")
    values.must_be("head_dim", dim // heads, "timm's networks have hidden_size / num_attention_heads")
    patch, other = values.sides("patch_size", LARGEST)
    if patch != other:
        raise values.refuse("patch_size", "which is not square")
    return dict(patch_size=patch, embed_dim=dim, depth=values.whole("num_hidden_layers", 1, DEEPEST), num_heads=heads)


def _ratio(values: Values, hidden: int) -> float:
    return ratio(hidden, values.whole("hidden_size", 1, WIDEST))


def _act(values: Values) -> str:
    return values.choice("hidden_act", ACTIVATIONS)


def _plain(values: Values) -> dict:
    """Arguments of a ViT with an ordinary MLP."""
    hidden = values.whole("intermediate_size", 1, 16 * WIDEST)
    return _sizes(values) | dict(mlp_ratio=_ratio(values, hidden), act_layer=_act(values))


def vit(values: Values) -> Network:
    """ViT; also DINO's, which transformers calls so."""
    return Network("vit_base_patch16_224", _plain(values) | dict(qkv_bias=values.flag("qkv_bias")))


def deit(values: Values) -> Network:
    """DeiT; its distillation token is timm's one register token. As in transformers, the class token is pooled."""
    network = vit(values)
    return Network(network.arch, network.arguments | dict(reg_tokens=1))


def masked(values: Values) -> Network:
    """MAE's encoder. As in the zoo's own rows of MAE, the patches are averaged before the last norm."""
    network = vit(values)
    return Network(network.arch, network.arguments, names.norm_after_pool, "avg", norm_of_all=True)


def ijepa(values: Values) -> Network:
    """I-JEPA: no class token; as in transformers' classifier the patches are averaged after the last norm."""
    network = vit(values)
    return Network(network.arch, network.arguments | dict(class_token=False, fc_norm=False), pool="avg")


def dinov2(values: Values) -> Network:
    """DINOv2, with an ordinary or a gated MLP."""
    sizes = _sizes(values) | dict(init_values=1.0, qkv_bias=values.flag("qkv_bias"))
    hidden = int(sizes["embed_dim"] * values.number("mlp_ratio", 0, 64))
    if not values.flag("use_swiglu_ffn"):
        arguments = sizes | dict(mlp_ratio=_ratio(values, hidden), act_layer=_act(values))
        return Network("vit_base_patch14_dinov2", arguments)
    gated = (int(hidden * 2 / 3) + 7) // 8 * 8  # as transformers computes it
    arguments = sizes | dict(mlp_ratio=_ratio(values, 2 * gated))
    return Network("vit_giant_patch14_dinov2", arguments, lambda state: names.gates_packed(names.in_timms_names(state)))


def dinov2_registers(values: Values) -> Network:
    """DINOv2 with registers."""
    network = dinov2(values)
    registers = dict(reg_tokens=values.whole("num_register_tokens", 1, LARGEST), no_embed_class=True)
    return Network(
        network.arch,
        network.arguments | registers,
        lambda state: names.position_in_token(network.convert(state)),
    )


def dinov3(values: Values) -> Network:
    """DINOv3's ViT: timm's Eva. Its attention has biases of queries and values, of all three, or none."""
    for key in ("proj_bias", "mlp_bias"):
        values.must_be(key, True, "timm's network has these biases")
    arguments = _sizes(values)
    if arguments["embed_dim"] // arguments["num_heads"] % 4:
        raise values.refuse("num_attention_heads", "but rotary positions need heads whose width is divisible by 4")
    biases = tuple(values.flag(f"{part}_bias") for part in ("query", "key", "value"))
    if biases not in ((True, False, True), (True, True, True), (False, False, False)):
        raise values.refuse("query_bias", "and timm's network has biases of queries and values, of all three, or none")
    gated = values.flag("use_gated_mlp")
    values.must_be("hidden_act", "silu" if gated else "gelu", "it is the activation of timm's network")
    arguments |= dict(
        mlp_ratio=_ratio(values, values.whole("intermediate_size", 1, 16 * WIDEST)),
        qkv_bias=any(biases),
        rope_temperature=values.number("rope_theta", 0, 1e9),
        num_reg_tokens=values.whole("num_register_tokens", 0, LARGEST),
    )
    if all(biases):
        arguments["attn_type"] = "rope"
    if gated:
        arguments |= dict(swiglu_mlp=True, swiglu_align_to=1)  # gate and value apart
    return Network(
        "vit_small_patch16_dinov3_qkvb",
        arguments,
        lambda state: names.as_eva(names.in_timms_names(state), gated),
    )


def clip(values: Values) -> Network:
    """CLIP's image tower, features before the projection."""
    return Network("vit_base_patch16_clip_quickgelu_224", _plain(values))


def siglip(values: Values) -> Network:
    """SigLIP's and SigLIP 2's image tower, of images of one size; pooled by attention if it has that head."""
    if values.flag("vision_use_head"):
        return Network("vit_base_patch16_siglip_224", _plain(values), pool="map")
    return Network("vit_base_patch16_siglip_gap_224", _plain(values), pool="avg")


KINDS = {
    "vit": Kind(vit, _VIT, interpolation="bilinear"),
    "deit": Kind(deit, _VIT, IMAGENET),
    "vit_mae": Kind(masked, _VIT, IMAGENET, "bilinear"),
    "ijepa": Kind(ijepa, _VIT, IMAGENET, "bilinear"),
    "dinov2": Kind(dinov2, _DINOV2, IMAGENET),
    "dinov2_with_registers": Kind(dinov2_registers, _DINOV2 | dict(patch_size=16, num_register_tokens=4), IMAGENET),
    "dinov3_vit": Kind(dinov3, _DINOV3, IMAGENET, "bilinear"),
    "clip_vision_model": Kind(clip, _CLIP, OPENAI),
    "metaclip_2_vision_model": Kind(clip, _CLIP, OPENAI),
    "siglip_vision_model": Kind(siglip, _SIGLIP),
}
WITH_TEXT = {"clip": "clip_vision_model", "metaclip_2": "metaclip_2_vision_model", "siglip": "siglip_vision_model"}
