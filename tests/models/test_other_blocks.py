"""ViTs whose blocks have other parts: a method adapts all of what it promises, or says at once what is missing."""

import re

import pytest
import timm
import torch
from conftest import make_cfg, make_model, make_vit, randomise
from runs import quick
from timm.layers import Attention, SwiGLU
from timm.models.vision_transformer import ResPostBlock
from torch import nn
from torch.nn import functional as F

from src.engine import shared
from src.engine.run import run
from src.models.method import called, wires
from src.models.sites import blocks
from src.models.vit_backbones.zoo import find_backbone
from src.models.vit_models import METHODS, require_methods_fit
from src.tools.list import matrix
from src.tools.list.cells import REFUSED

# What each of these says that it adapts: every linear map of every block.
EVERY_MAP = ("lora", "peft", "boft", "vera", "fft", "rlrr", "ssf")


def maps(vit: nn.Module) -> set[str]:
    return {
        f"{b}.{n}" for b, block in blocks(vit).items() for n, m in block.named_modules() if isinstance(m, nn.Linear)
    }


@pytest.mark.parametrize("title", ["DINOv2 giant", "AIMv2", "BEiT-3", "post-norm", "parallel", "pwee"])
@pytest.mark.parametrize("name", EVERY_MAP)
def test_every_linear_map_is_adapted_where_the_method_fits(title, name):
    """What else must be true of each of these is tested, with the reasons of those that do not fit, by the matrix."""
    vit, cell = matrix.specimens()[title].build().float(), matrix.read()[title][name]
    every_map, keys = maps(vit), {"MODEL__FFT__FREQ": 30}
    if cell.mark == REFUSED:
        with pytest.raises(ValueError, match=re.escape(cell.reason)):
            make_model(name, vit=vit, **keys)
        return
    assert every_map
    assert every_map <= {site for _, site, _, _ in wires(make_model(name, vit=vit, **keys).methods)}


def test_the_hidden_layer_of_a_swiglu_is_one_target_and_one_site(images):
    """Both of its halves; an adapter before the MLP is the same for both."""
    vit = make_vit(mlp_layer=SwiGLU)
    model = make_model("lora", vit=vit, MODEL__LORA__TARGETS=["mlp.fc1"])
    assert [site for _, site, _, _ in wires(model.methods)][:2] == ["blocks.0.mlp.fc1_g", "blocks.0.mlp.fc1_x"]
    model = make_model("mlp_tuning", vit=make_vit(mlp_layer=SwiGLU), MODEL__MLP_TUNING__PART="fc1")
    assert {n for n, p in model.vit.named_parameters() if p.requires_grad} == {
        f"blocks.2.mlp.fc1_{half}.{kind}" for half in "gx" for kind in ("weight", "bias")
    }
    model = make_model("repadapter", vit=make_vit(mlp_layer=SwiGLU), MODEL__REPADAPTER__SITES=["mlp"])
    randomise(model)
    x, block = torch.randn(2, 5, 32), model.vit.blocks[1]
    plain, adapter = make_vit(mlp_layer=SwiGLU).blocks[1].mlp, model.methods["repadapter"].taps[1]
    torch.testing.assert_close(block.mlp(x), plain(adapter(x)))


def test_where_the_norm_comes_behind_a_branch_adaptformer_reads_the_residual_stream(images):
    model = make_model("adaptformer", vit=make_vit(block_fn=ResPostBlock))
    randomise(model)
    x, block = torch.randn(2, 17, 32), model.vit.blocks[1]
    plain, adapter = make_vit(block_fn=ResPostBlock).blocks[1], model.methods["adaptformer"].taps[1]
    y = x + plain.norm1(plain.attn(x))
    torch.testing.assert_close(block(x), y + plain.norm2(plain.mlp(y) + adapter(y)))


def test_inner_norms_are_scaled_and_shifted_too():
    for name in ("ssf", "rlrr"):
        sites = {
            site
            for _, site, _, _ in wires(
                make_model(name, vit=make_vit(scale_attn_norm=True, scale_mlp_norm=True)).methods
            )
        }
        assert {"blocks.0.attn.norm", "blocks.2.mlp.norm"} <= sites
    assert not any("mlp.norm" in site for _, site, _, _ in wires(make_model("ssf").methods))  # it is an Identity


def test_every_norm_of_a_convnext_with_rms_norms_trains():
    small = dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=0)
    vit = timm.create_model("convnext_zepto_rms", **small)
    model = make_model("layernorm", vit=vit)
    trained = {name.rsplit(".", 1)[0] for name, param in model.vit.named_parameters() if param.requires_grad}
    assert {f"stages.{i}.blocks.0.norm" for i in range(4)} <= trained
    for name in ("lora", "adapter", "difffit", "repadapter", "rlrr", "spt_lora"):
        with pytest.raises(ValueError, match=rf"method '{name}' does not fit.*Conv2d, not a linear map"):
            make_model(name, vit=timm.create_model("convnext_zepto_rms", **small))


def test_a_method_that_would_train_nothing_is_refused():
    vit = make_vit(qkv_bias=False, proj_bias=False, norm_layer="rmsnorm", mlp_layer=SwiGLU)
    for name, param in [*vit.named_parameters()]:
        if name.endswith("bias"):
            vit.get_submodule(name.rsplit(".", 1)[0]).register_parameter("bias", None)
            assert param is not None
    with pytest.raises(ValueError, match=r"method 'tinytl-bias' does not fit .*nothing that it would train"):
        make_model("bitfit", vit=vit)


# --- modules that are there and never called


class ReadsWeights(Attention):
    """As timm's fused paths do: what qkv computes, without calling it."""

    def forward(self, x, *args, **kwargs):
        q, k, v = F.linear(x, self.qkv.weight, self.qkv.bias).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
        return self.proj(y.transpose(1, 2).flatten(2))


def with_weights_read() -> nn.Module:
    vit = make_vit()
    vit.blocks[1].attn.__class__ = ReadsWeights
    return vit


@pytest.mark.parametrize("name", ["lora", "peft", "ssf", "rlrr", "repadapter", "fact_tt"])
def test_a_tap_at_a_module_that_is_never_called_is_an_error(name):
    with pytest.raises(ValueError, match=rf"method '{name}' would do nothing at blocks\.1\.attn\.qkv"):
        make_model(name, vit=with_weights_read())


def test_taps_elsewhere_on_such_a_network_work(images):
    model = make_model("lora", vit=with_weights_read(), MODEL__LORA__TARGETS=["attn.proj", "mlp.fc1"])
    plain = make_model("linear").features(images)
    torch.testing.assert_close(model.features(images), plain, atol=1e-5, rtol=1e-5)
    randomise(model)
    assert not torch.allclose(model.features(images), plain, atol=1e-3)


def test_to_look_which_modules_are_called_changes_nothing():
    vit = with_weights_read().bfloat16()
    before = {name: (tensor, tensor.clone()) for name, tensor in vit.state_dict(keep_vars=True).items()}
    random = torch.random.get_rng_state()
    found = called(vit)
    assert {"", "patch_embed.proj", "blocks.0.attn.qkv", "blocks.1.attn", "blocks.1.attn.proj", "norm"} <= found.keys()
    assert "blocks.1.attn.qkv" not in found
    assert torch.equal(torch.random.get_rng_state(), random)
    for name, tensor in vit.state_dict(keep_vars=True).items():
        assert tensor is before[name][0]
        assert torch.equal(tensor, before[name][1])
    assert not any(module._forward_pre_hooks for module in vit.modules())


# --- before weights and data are read


def test_what_does_not_fit_is_found_before_data_and_weights_are_read(tmp_path, monkeypatch):
    cfg, folder = quick(
        tmp_path,
        "DATA.FEATURE",
        "timm:vit_pwee_patch16_reg1_gap_256",
        "MODEL.TRANSFER_TYPE",
        "houlsby",
        "DATA.CROPSIZE",
        "32",
    )
    monkeypatch.setattr(shared, "open_data", lambda cfg: pytest.fail("data were read"))
    with pytest.raises(ValueError, match=r"'houlsby' does not fit .*vit_pwee_patch16_reg1_gap_256.*has no attn"):
        run(cfg, folder)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_looked_at_without_files(name):
    require_methods_fit(make_cfg(DATA__FEATURE="vit_micro_glyphs", DATA__CROPSIZE=32, MODEL__TRANSFER_TYPE=name))


@pytest.mark.parametrize(
    ("architecture", "method", "said"),
    [
        ("test_vit_relpos", "boft", r"BLOCK_SIZE is 4, of which the 2 inputs of blocks\.0\.attn\.rel_pos"),
        ("test_vit_relpos", "fft", r"FREQ is 3000, more than the 256 entries of blocks\.0\.attn\.rel_pos"),
        ("convnext_atto", "vera", r"mlp\.fc1 is a Conv2d, not a linear map\. Choose another method or backbone$"),
        ("fastvit_sa12", "lora", r"a Conv2d, not .*, or MODEL\.LORA\.TARGETS among attn\.q, attn\.k, attn\.v, .*proj$"),
        ("test_resnet", "peft", r"an? ResNet\): no block .*or name its convolutions .* in MODEL\.PEFT\.KWARGS\.target"),
    ],
)
def test_refusals_come_before_the_model_is_built_and_say_what_helps(architecture, method, said):
    with pytest.raises(ValueError, match=said):
        require_methods_fit(make_cfg(DATA__FEATURE=f"timm:{architecture}", MODEL__TRANSFER_TYPE=method))


def test_convolutions_are_adapted_where_peft_is_told_their_names():
    keys = {"MODEL__PEFT__KWARGS": {"target_modules": ["conv1", "conv2"]}}
    require_methods_fit(make_cfg(DATA__FEATURE="timm:test_resnet", MODEL__TRANSFER_TYPE="peft", **keys))


def test_a_name_that_timm_does_not_have():
    with pytest.raises(ValueError, match=r"no network of this name; did you mean vit_small_patch16_224"):
        find_backbone("timm:vit_smal_patch16_224")


def test_deit_is_a_vit():
    for name in ("deit3_small_patch16_224", "deit_tiny_patch16_224", "deit3_small_patch16_224.fb_in1k"):
        assert find_backbone(f"timm:{name}") is None
    require_methods_fit(make_cfg(DATA__FEATURE="timm:deit3_small_patch16_224", MODEL__TRANSFER_TYPE="lora+prompt"))
