"""Families of networks: each is described in one class, and methods act on the networks of all of them."""

import re
from collections.abc import Callable

import pytest
import timm
import torch
from conftest import make_model, make_vit, randomise
from torch import nn

from src.models.called import called
from src.models.families import FAMILIES, family_of
from src.models.families.base import NORMS
from src.models.families.names import is_inside
from src.models.merge import load_merged, merged, merged_state_dict
from src.models.sites import block_sites, blocks
from src.models.vit_models import TunedViT


def small(name: str, **arguments) -> Callable[[], nn.Module]:
    """What makes a small network of timm with random weights."""
    return lambda: timm.create_model(name, num_classes=0, **arguments).eval()


TINY = {"img_size": 64, "embed_dim": 16, "depth": 2, "num_heads": 2}
STAGES = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
SMALL = {
    "ViT": make_vit,
    "Eva": small("vit_small_patch16_dinov3_qkvb", **TINY),
    "BEiT": small("beit_base_patch16_224", **TINY),
    "NaFlex": small(
        "naflexvit_base_patch16_gap", **TINY, embed_norm_layer="layernorm", rope_type="axial", class_token=True
    ),
    "Swin": small("swin_tiny_patch4_window7_224", img_size=64, **STAGES),
    "Swin V2": small("swinv2_tiny_window8_256", img_size=64, **STAGES),
    "Hiera": small("hiera_tiny_224", img_size=64, embed_dim=16, stages=(1, 1, 1, 1)),
    "SAM": small("samvit_base_patch16", **TINY, window_size=3, global_attn_indexes=(1,)),
    "MViT v2": small("mvitv2_tiny", img_size=64),
    "CaiT": small("cait_xxs24_224", **TINY),
    "XCiT": small("xcit_nano_12_p16_224", **TINY),
    "DaViT": small("davit_tiny", embed_dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
    "MaxViT": small("maxvit_rmlp_pico_rw_256", img_size=64, embed_dim=(32,) * 4, depths=(1,) * 4, stem_width=16),
    "FastViT": small("fastvit_sa12", embed_dims=(16, 16, 16, 32), layers=(1, 1, 1, 1)),
    "ResNet": small("resnet50", layers=(1, 1, 1, 1), base_width=8),
    "ResNet v2": small("resnetv2_50", layers=(1, 1, 1, 1), channels=(16, 16, 16, 32)),
    "RegNet": small("regnety_002"),
    "EfficientNet": small("test_efficientnet"),
    "MobileNet v3": small("mobilenetv3_small_050"),
    "ConvNeXt": small("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16)),
}
ROLES = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


@pytest.mark.parametrize("family", FAMILIES, ids=[family.title for family in FAMILIES])
def test_what_a_family_names_is_in_its_networks_and_runs(family):
    vit = SMALL[family.title]()
    family.prepare(vit)
    assert family_of(vit) is family
    modules, running = dict(vit.named_modules()), called(vit)
    assert blocks(vit)
    for role in ROLES:
        if not family.lacks(role):
            assert block_sites(vit, [role]).keys() <= running.keys()
    last = [name for name in [family.final_norm(vit, "fc_norm")] if name]
    for name in (family.patches, family.projection_of(vit), *last, *family.operations_of(vit)):
        assert name in modules, name
        assert name in running, name
    used = [part for stage in family.stages(vit) for part in stage.parts]
    assert all(any(is_inside(name, part) for part in used) for name, _ in vit.named_parameters())


@pytest.mark.parametrize("family", FAMILIES, ids=[family.title for family in FAMILIES])
def test_a_family_knows_every_operation_between_image_and_features(family):
    vit = SMALL[family.title]()
    family.prepare(vit)
    assert not [name for name, block in blocks(vit).items() if family.unknown(block)]
    running = called(vit)
    known = {*family.operations_of(vit), family.final_norm(vit, "fc_norm"), "norm_pre"}
    for name, op in vit.named_modules():
        activates = not isinstance(getattr(op, "act", nn.Identity()), nn.Identity)  # a norm that cannot be scaled
        if isinstance(op, (nn.Linear, nn.Conv2d, *NORMS)) and not activates and name in running and name not in known:
            (own,) = (name.removeprefix(f"{block}.") for block in blocks(vit) if is_inside(name, block))
            assert re.fullmatch(family.others, own), name


@pytest.mark.parametrize("family", FAMILIES, ids=[family.title for family in FAMILIES])
def test_the_stages_of_a_family_are_its_forward(family):
    vit = SMALL[family.title]()
    randomise_all(vit)
    x = images = torch.randn(2, 3, *family.image_size(vit), generator=torch.Generator().manual_seed(0))
    stages = family.stages(vit)
    with torch.no_grad():
        for stage in stages:
            x = stage.run(x)
        expected = vit.forward_head(vit.forward_features(images), pre_logits=True)
    assert stages
    torch.testing.assert_close(x, expected)


def randomise_all(vit: nn.Module) -> None:
    """Move every parameter, also those that timm starts at zero."""
    for param in vit.parameters():
        param.data.add_(0.05 * torch.randn(param.shape, generator=torch.Generator().manual_seed(param.numel())))


def model_of(family: str, methods: str, **keys) -> TunedViT:
    build = SMALL.get(family) or small("mixer_s32_224", img_size=64)
    return make_model(methods, vit=build(), **{f"MODEL__{name}": value for name, value in keys.items()})


def batch(model: TunedViT) -> torch.Tensor:
    size = family_of(model.vit).image_size(model.vit)
    return torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))


def test_running_statistics_that_training_changes_are_saved_and_read_back():
    model = model_of("ResNet", "end2end")
    model.train()
    model(batch(model))
    model.eval()
    again = model_of("ResNet", "end2end")
    again.load_tuned_state_dict(model.tuned_state_dict())
    again.eval()
    torch.testing.assert_close(again(batch(model)), model(batch(model)))


def test_running_statistics_of_a_frozen_network_stay():
    model = model_of("ResNet", "layernorm+partial-2")
    before = {name: buffer.clone() for name, buffer in model.vit.named_buffers()}
    model.train()
    model(batch(model)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.vit.named_buffers())
    assert not [name for name in model.tuned_state_dict() if "running" in name]
    assert all(param.grad is not None for param in model.parameters() if param.requires_grad)


def test_peft_adapts_convolutions():
    kwargs = {"r": 2, "target_modules": r"layer\d\.\d\.conv[13]"}
    model = model_of("ResNet", "peft", PEFT__TYPE="LORA", PEFT__KWARGS=kwargs)
    randomise(model)
    plain = SMALL["ResNet"]()
    plain.load_state_dict(merged_state_dict(model.eval()))
    assert model.num_trained()["peft"] > 0
    torch.testing.assert_close(plain(batch(model)), model.features(batch(model)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "methods", "keys", "reason"),
    [
        ("BEiT", "prompt", {}, "relative positions"),
        ("Hiera", "houlsby", {"HOULSBY__MODE": "parallel"}, "blocks.1.attn does not return"),
        (
            "CaiT",
            "houlsby",
            {"HOULSBY__MODE": "parallel"},
            "blocks_token_only.0.attn does not return",
        ),
        (
            "MViT v2",
            "houlsby",
            {"HOULSBY__MODE": "parallel"},
            "stages.0.blocks.0.attn does not return",
        ),
        ("Swin V2", "convpass", {}, "needs the tokens of a ViT"),
        ("MaxViT", "lora", {}, "head by head"),
        ("FastViT", "lora", {}, "mlp.fc1 is a Conv2d"),
        ("ResNet", "lora", {}, "no block of a ResNet has any of attn.q"),
        ("ResNet", "partial-9", {}, "4 blocks"),
        ("an MLP-Mixer", "rlrr", {}, "what makes tokens of images in a MlpMixer is unknown"),
    ],
)
def test_what_a_network_cannot_take_is_refused_with_the_reason(family, methods, keys, reason):
    with pytest.raises(ValueError, match=reason):
        model_of(family, methods, **keys)


@pytest.mark.parametrize(
    ("family", "methods", "keys"),
    [
        ("MaxViT", "lora", {"LORA__TARGETS": ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]}),
        ("FastViT", "lora", {"LORA__TARGETS": ["attn.q", "attn.v", "attn.proj"]}),
        ("FastViT", "houlsby", {"HOULSBY__SITES": ["attn"]}),
        ("MViT v2", "houlsby+rlrr", {}),
        ("XCiT", "adaptformer", {}),
        ("CaiT", "cls+lora", {}),
        ("NaFlex", "prompt+freqfit+cls", {}),
    ],
)
def test_what_only_some_blocks_have_is_adapted_there(family, methods, keys):
    model = model_of(family, methods, **keys)
    randomise(model)
    model(batch(model)).square().sum().backward()
    assert not [name for name, param in model.named_parameters() if param.requires_grad and param.grad is None]


def test_a_network_in_training_mode_is_looked_at_as_it_will_be_used():
    """Batch norm refuses one image of one pixel in training mode, and a tuned network's is in eval mode."""
    vit = timm.create_model("mobilenetv4_conv_small", num_classes=0)
    assert vit.training
    assert not make_model("ssf", vit=vit).vit.training


def test_a_shift_after_the_rms_norm_of_a_parallel_block_goes_into_its_joint_map():
    def network() -> torch.nn.Module:
        torch.manual_seed(1)
        sizes = dict(img_size=32, depth=2, embed_dim=32, num_heads=2, num_classes=0)
        return timm.create_model("vit_base_patch16_xp_224", **sizes).eval()

    model, images = make_model("ssf", vit=network()), torch.randn(2, 3, 32, 32)
    randomise(model)
    found, plain = merged(model), network()
    load_merged(plain, found.state)
    pooled = plain.forward_head(plain.forward_features(images), pre_logits=True) + found.shift
    torch.testing.assert_close(pooled, model.features(images), atol=1e-4, rtol=1e-4)
