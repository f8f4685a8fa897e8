"""Files as their publishers write them, made from timm's networks by the inverse of each conversion."""

import re

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from timm.models import convnext, eva, swin_transformer, vision_transformer
from torch import Tensor, nn

from src.models.vit_backbones import convert
from src.models.vit_backbones.build import load_weights
from src.models.vit_backbones.zoo import MODEL_ZOO

State = dict[str, Tensor]
SMALL = dict(embed_dim=24, depth=2, num_heads=2)
STAGES = dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2))
CONVOLUTIONS = dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))


def network(row: str, **sizes: object) -> nn.Module:
    """The architecture of a row in small, with random weights; also norms, biases and tokens are."""
    torch.manual_seed(0)
    row = MODEL_ZOO[row]
    vit = timm.create_model(row.arch, num_classes=0, global_pool=row.pool, **{**row.arguments, **sizes}).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return vit


def renamed(state: State, names: dict[str, str]) -> State:
    """Names replaced by regular expressions, one after the other."""
    for ours, theirs in names.items():
        state = {re.sub(ours, theirs, name): tensor for name, tensor in state.items()}
    return state


# --- what publishers write


def dinov2_giant(state: State) -> State:
    state = renamed(state, {r"mlp\.fc1\.": "mlp.w12.", r"mlp\.fc2\.": "mlp.w3."})
    return state | {"mask_token": torch.zeros(1, 24)}


def dinov3(state: State) -> State:
    """Biases of keys are whatever they were before they were masked."""
    names = {"reg_token": "storage_tokens", r"gamma_(\d)": r"ls\1.gamma", "fc1_g": "w1", "fc1_x": "w2"}
    state = renamed(state, names)
    if any("w1" in name for name in state):
        state = renamed(state, {r"mlp\.fc2": "mlp.w3"})
    for name in [name for name in state if name.endswith("q_bias")]:
        query, value = state.pop(name), state.pop(name.replace("q_bias", "v_bias"))
        qkv = name.replace("q_bias", "qkv.")
        state[f"{qkv}bias"] = torch.cat((query, torch.full_like(query, 7), value))
        state[f"{qkv}bias_mask"] = torch.cat((torch.ones_like(query), torch.zeros_like(query), torch.ones_like(query)))
    spare = {"mask_token": torch.zeros(1, 24), "rope_embed.periods": torch.ones(3)}
    return state | spare | {"local_cls_norm.weight": torch.ones(24)}


def eva02_masked(state: State) -> State:
    names = {"fc_norm": "norm", r"mlp\.norm": "mlp.ffn_ln", r"attn\.norm": "attn.inner_attn_ln"}
    names |= {"fc1_g": "w1", "fc1_x": "w2", r"mlp\.fc1": "mlp.w12", r"mlp\.fc2": "mlp.w3"}
    state = renamed(state, names | {r"(q|v)_proj\.bias": r"\1_bias"})
    spare = {"rope.freqs_cos": torch.ones(4, 4), "blocks.0.attn.rope.freqs_sin": torch.ones(4, 4)}
    return state | spare | {"mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.ones(5, 24)}


def eva02_tuned(state: State) -> State:
    state = renamed(eva02_masked(state), {"^norm": "fc_norm", "^lm_head": "head"})
    return {name: tensor for name, tensor in state.items() if name != "mask_token"}


def perception(state: State) -> State:
    names = {
        r"^patch_embed\.proj": "conv1", "^pos_embed": "positional_embedding", r"^blocks\.": "transformer.resblocks.",
        r"attn\.qkv\.": "attn.in_proj_", r"attn\.proj": "attn.out_proj",
        r"mlp\.fc1": "mlp.c_fc", r"mlp\.fc2": "mlp.c_proj",
        "norm_pre": "ln_pre", "^norm": "ln_post", r"\.norm([12])": r".ln_\1", "cls_token": "class_embedding",
        r"attn_pool\.norm": "attn_pool.layernorm", r"attn_pool\.latent": "attn_pool.probe",
        r"attn_pool\.proj": "attn_pool.attn.out_proj",
    }  # fmt: skip
    state = renamed(state, names)
    for kind in ("weight", "bias") if "attn_pool.probe" in state else ():
        qkv = [state.pop(f"attn_pool.{part}.{kind}") for part in ("q", "kv")]
        state[f"attn_pool.attn.in_proj_{kind}"] = torch.cat(qkv)
    if "class_embedding" in state:
        state["class_embedding"] = state["class_embedding"][0, 0]
    state["positional_embedding"] = state["positional_embedding"][0]
    state["proj"] = torch.ones(24, 5)
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_scale": torch.ones(())}
    return {f"visual.{name}": tensor for name, tensor in state.items()} | text


def perception_alone(state: State) -> State:
    state = {name.removeprefix("visual."): t for name, t in perception(state).items() if name.startswith("visual.")}
    return {name: tensor for name, tensor in state.items() if name != "proj"} | {"rope.freqs": torch.ones(3)}


def swin(state: State) -> State:
    state = renamed(state, {rf"layers\.{i}\.downsample": f"layers.{i - 1}.downsample" for i in range(1, 4)})
    index = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4, dtype=torch.long)}
    mask = {"layers.0.blocks.0.attn_mask": torch.zeros(1, 4, 4)}
    return {"model": state | index | mask | {"head.weight": torch.ones(5, 8)}}


def moby(state: State) -> State:
    learning = {f"encoder.{name}": tensor for name, tensor in swin(state)["model"].items()}
    average = {f"encoder_k.{name.removeprefix('encoder.')}": torch.zeros_like(t) for name, t in learning.items()}
    return {"model": learning | average | {"projector.linear1.weight": torch.ones(4, 4), "queue1": torch.ones(2, 2)}}


def convnext_names(state: State) -> State:
    names = {
        r"^stem\.": "downsample_layers.0.", r"^stages\.(\d)\.downsample": r"downsample_layers.\1", r"\.blocks": "",
        "conv_dw": "dwconv", r"mlp\.fc": "pwconv", r"^head\.norm": "norm",
    }  # fmt: skip
    return renamed(state, names)


def convnext_file(state: State) -> State:
    return {"model": convnext_names(state) | {"head.weight": torch.ones(5, 16), "head.bias": torch.ones(5)}}


def dinov3_convnext(state: State) -> State:
    state = convnext_names(state)
    return state | {f"norms.3.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")}


FILES = {
    "dinov2_giant": ("dinov2_vitg14", SMALL | dict(img_size=28, mlp_ratio=4), dinov2_giant, vision_transformer),
    "dinov3": ("dinov3_vits16", SMALL | dict(img_size=32), dinov3, eva),
    "dinov3_gated": ("dinov3_vith16plus", SMALL | dict(img_size=32), dinov3, eva),
    "dinov3_without_biases": ("dinov3_vit7b16", SMALL | dict(img_size=32), dinov3, eva),
    "eva02_small": ("eva02_vits14", SMALL | dict(img_size=28), eva02_masked, eva),
    "eva02_base": ("eva02_vitb14", SMALL | dict(img_size=28), eva02_masked, eva),
    "eva02_tuned": ("eva02_vitl14_imagenet22k", SMALL | dict(img_size=28), eva02_tuned, eva),
    "perception": ("pe_core_vitb16", SMALL | dict(img_size=32, attn_pool_num_heads=2), perception, eva),
    "perception_giant": ("pe_core_vitg14_448", SMALL | dict(img_size=28, attn_pool_num_heads=2), perception, eva),
    "perception_spatial": ("pe_spatial_vitti16_512", SMALL | dict(img_size=32), perception_alone, eva),
    "perception_lang": ("pe_lang_vitg14_448_tiling", SMALL | dict(img_size=28), perception, eva),
    "swin": ("swinb_imagenet22k_224", STAGES | dict(img_size=224), swin, swin_transformer),
    "moby": ("swint_imagenet_ssl", STAGES | dict(img_size=224), moby, None),
    "convnext": ("imagenet22k_sup_rnx_base", CONVOLUTIONS, convnext_file, convnext),
    "dinov3_convnext": (
        "dinov3_convnext_tiny",
        CONVOLUTIONS,
        dinov3_convnext,
        convnext,
    ),
}


@pytest.fixture(params=FILES)
def published(request, tmp_path):
    """(Network, converter, published tensors, file, timm's module with a conversion of its own or None)."""
    name, sizes, publish, module = FILES[request.param]
    vit = network(name, **sizes)
    content = publish(dict(vit.state_dict()))
    torch.save(content, tmp_path / "file.pth")
    return vit, MODEL_ZOO[name].convert, content, tmp_path / "file.pth", module


def test_the_network_comes_back(published):
    vit, converter, _, path, _ = published
    state = converter(path)
    assert state.keys() == vit.state_dict().keys()
    for name, tensor in vit.state_dict().items():
        torch.testing.assert_close(state[name].float(), tensor, atol=0, rtol=0, msg=name)


def test_timms_own_conversion_gives_the_same(published, capsys):
    vit, converter, content, path, module = published
    if module is None:
        return
    theirs = module.checkpoint_filter_fn(content, vit)
    ours = converter(path)
    for name in vit.state_dict():
        torch.testing.assert_close(ours[name].float(), theirs[name].float(), atol=0, rtol=0, msg=name)


def test_missing_and_foreign_tensors_are_named(published):
    vit, converter, content, path, _ = published
    tensors = content.get("model", content)
    prefix = "encoder." if "encoder.norm.bias" in tensors else "visual." if "visual.proj" in tensors else ""
    last = re.compile(re.escape(prefix) + r".*(mlp\.(fc2|w3|c_proj)|pwconv2)\.bias")
    del tensors[next(name for name in tensors if last.fullmatch(name) and "attn_pool" not in name)]
    tensors[f"{prefix}extra.weight"] = torch.ones(2)
    torch.save(content, path)
    with pytest.raises(ValueError, match="does not fit") as error:
        load_weights(vit, path, converter)
    assert re.search(r"1 missing, 1 unexpected.*missing .*mlp\.fc2\.bias.*unexpected extra\.weight", str(error.value))


def test_dinov3_in_the_names_of_transformers(tmp_path):
    """Both layouts of the same weights give the same network."""
    sizes = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes, num_register_tokens=4)).eval()
    model.save_pretrained(tmp_path)
    vit = network("dinov3_vits16", **SMALL, img_size=32)
    load_weights(vit, tmp_path / "model.safetensors", convert.dinov3)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(vit(images), model(images).last_hidden_state[:, 5:].mean(1), atol=1e-5, rtol=1e-5)


def test_a_bias_of_keys_that_is_not_masked_is_refused(tmp_path):
    state = dinov3(dict(network("dinov3_vits16", **SMALL, img_size=32).state_dict()))
    del state["blocks.0.attn.qkv.bias_mask"]
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="bias of keys"):
        convert.dinov3(tmp_path / "file.pth")


# --- big_vision's and open_clip's


def big_vision(vit: nn.Module, scanned: bool) -> dict[str, np.ndarray]:
    """SigLIP's arrays."""
    state = {name: tensor.numpy() for name, tensor in vit.state_dict().items()}
    heads, depth = vit.blocks[0].attn.num_heads, len(vit.blocks)
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "MAPHead_0/probe": state["attn_pool.latent"],
    }

    def block(ours: str, q: str, k: str, v: str, proj: str, norms: dict[str, str]) -> dict[str, np.ndarray]:
        dim = state[f"{ours}{proj}.bias"].shape[0]
        made = {f"{theirs}/scale": state[f"{ours}{name}.weight"] for name, theirs in norms.items()}
        made |= {f"{theirs}/bias": state[f"{ours}{name}.bias"] for name, theirs in norms.items()}
        for i in range(2):
            made[f"MlpBlock_0/Dense_{i}/kernel"] = state[f"{ours}mlp.fc{i + 1}.weight"].T
            made[f"MlpBlock_0/Dense_{i}/bias"] = state[f"{ours}mlp.fc{i + 1}.bias"]
        mha = "MultiHeadDotProductAttention_0"
        weights = np.concatenate([state[f"{ours}{part}.weight"] for part in dict.fromkeys((q, k, v))])
        biases = np.concatenate([state[f"{ours}{part}.bias"] for part in dict.fromkeys((q, k, v))])
        for i, part in enumerate(("query", "key", "value")):
            made[f"{mha}/{part}/kernel"] = weights[i * dim : (i + 1) * dim].T.reshape(dim, heads, -1)
            made[f"{mha}/{part}/bias"] = biases[i * dim : (i + 1) * dim].reshape(heads, -1)
        made[f"{mha}/out/kernel"] = state[f"{ours}{proj}.weight"].T.reshape(heads, -1, dim)
        made[f"{mha}/out/bias"] = state[f"{ours}{proj}.bias"]
        return made

    qkv = ("attn.qkv",) * 3
    norms = {"norm1": "LayerNorm_0", "norm2": "LayerNorm_1"}
    blocks = [block(f"blocks.{i}.", *qkv, "attn.proj", norms) for i in range(depth)]
    if scanned:
        arrays |= {f"Transformer/encoderblock/{k}": np.stack([b[k] for b in blocks]) for k in blocks[0]}
    else:
        arrays |= {f"Transformer/encoderblock_{i}/{k}": v for i, b in enumerate(blocks) for k, v in b.items()}
    arrays |= {
        f"MAPHead_0/{k}": v for k, v in block("attn_pool.", "q", "kv", "kv", "proj", {"norm": "LayerNorm_0"}).items()
    }
    text = {"params/txt/head/kernel": np.ones((4, 4), "f4"), "params/t": np.ones(1, "f4"), "params/b": np.ones(1, "f4")}
    return {f"params/img/{name}": array for name, array in arrays.items()} | text


@pytest.mark.parametrize("scanned", [False, True])
def test_siglip_is_read_as_timm_reads_it(tmp_path, scanned):
    vit = network("siglip2_vitso400m14", **SMALL, img_size=28)
    np.savez(tmp_path / "file.npz", **big_vision(vit, scanned))
    ours, theirs = (network("siglip2_vitb16", **SMALL, img_size=28, patch_size=14, mlp_ratio=3.7362) for _ in range(2))
    for other in (ours, theirs):
        nn.init.zeros_(other.pos_embed)
    load_weights(ours, tmp_path / "file.npz", convert.siglip)
    theirs.load_pretrained(str(tmp_path / "file.npz"))
    for name, tensor in vit.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
        assert torch.equal(theirs.state_dict()[name], tensor), name


def test_siglip_without_an_image_tower_or_with_more(tmp_path):
    vit = network("siglip2_vitb16", **SMALL, img_size=32)
    arrays = big_vision(vit, scanned=True)
    np.savez(tmp_path / "more.npz", **arrays, **{"params/img/head/kernel": np.ones((2, 2), "f4")})
    with pytest.raises(ValueError, match="unexpected head/kernel"):
        load_weights(vit, tmp_path / "more.npz", convert.siglip)
    np.savez(tmp_path / "text.npz", **{k: v for k, v in arrays.items() if "/img/" not in k})
    with pytest.raises(ValueError, match="holds no image tower"):
        load_weights(vit, tmp_path / "text.npz", convert.siglip)


@pytest.mark.parametrize(("row", "quick"), [("metaclip_vitb16", True), ("metaclip2_vith14_378", False)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_features_are_those_of_open_clip(tmp_path, row, quick, wrapped):
    vision = open_clip.CLIPVisionCfg(layers=2, width=24, head_width=12, patch_size=8, image_size=32, mlp_ratio=4.0)
    text = open_clip.CLIPTextCfg(context_length=4, vocab_size=9, width=16, heads=2, layers=1)
    torch.manual_seed(0)
    clip = open_clip.CLIP(12, vision, text, quick_gelu=quick).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = {f"module.{k}": v for k, v in clip.state_dict().items()} if wrapped else clip.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "file.pt")
    vit = network(row, **SMALL, img_size=32, patch_size=8, mlp_ratio=4.0)
    load_weights(vit, tmp_path / "file.pt", MODEL_ZOO[row].convert)
    clip.visual.proj = None
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(vit(images), clip.visual(images), atol=1e-5, rtol=1e-5)


# --- the rows


TAGS = {
    "augreg_vitb16_imagenet21k": "augreg_in21k", "dinov2_vitg14_reg": "lvd142m", "dinov3_vitl16": "lvd1689m",
    "dinov3_vitl16_sat": "sat493m", "eva02_vitb14": "mim_in22k", "eva02_vitl14_m38m_imagenet22k": "mim_m38m_ft_in22k",
    "metaclip2_vith14_378": "metaclip2_worldwide", "metaclip_vitb32": "metaclip_2pt5b",
    "siglip2_vitg16_384": "v2_webli", "siglip_vitso400m14_378": "webli", "pe_core_vits16_384": "fb",
    "pe_spatial_vitg14_448": "fb", "pe_lang_vitl14_448_tiling": "fb_tiling",
    "swinb_imagenet_384": "ms_in1k", "dinov3_convnext_tiny": "dinov3_lvd1689m",
}  # fmt: skip


@pytest.mark.parametrize("name", TAGS)
def test_pixels_licence_and_pooling_are_those_that_timm_states(name):
    row = MODEL_ZOO[name]
    stated = timm.get_pretrained_cfg(f"{row.arch}.{TAGS[name]}")
    assert row.mean_std == (tuple(stated.mean), tuple(stated.std))
    assert row.interpolation == stated.interpolation
    assert row.licence == stated.license
    with torch.device("meta"):
        vit = timm.create_model(row.arch, num_classes=0)
    assert getattr(vit, "global_pool", "avg") in (row.pool, "")


def test_every_file_belongs_to_one_row():
    files = [file for name, row in MODEL_ZOO.items() if name != "mae_vitb16_freshnorm" for file in row.files]
    assert len(files) == len(set(files))


@pytest.mark.filterwarnings("ignore")  # of torch, about what timm does
def test_swins_windows_shrink_with_the_image(tmp_path):
    """Positions within a window are resized, as timm does, where the maps are smaller than the windows."""
    torch.save(swin(dict(network("swint_imagenet", **STAGES, img_size=224).state_dict())), tmp_path / "file.pth")
    small = network("swint_imagenet", **STAGES, img_size=64)
    load_weights(small, tmp_path / "file.pth", convert.swin)
    content = torch.load(tmp_path / "file.pth")
    theirs = swin_transformer.checkpoint_filter_fn(content, small)
    for name, tensor in small.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)
