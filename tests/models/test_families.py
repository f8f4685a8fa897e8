"""Families of networks: each is described in one class, and one more class lets methods work on other networks."""

import re
from collections.abc import Callable

import pytest
import timm
import torch
from conftest import make_vit
from torch import nn

from src.models.called import called
from src.models.families import FAMILIES, family_of
from src.models.families.base import NORMS
from src.models.families.names import is_inside
from src.models.sites import block_sites, blocks


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
        "naflexvit_base_patch16_gap", **TINY, embed_norm_layer="layernorm", rope_type="axial", pre_norm=True
    ),
    "Swin": small("swin_tiny_patch4_window7_224", img_size=64, **STAGES),
    "Swin V2": small("swinv2_tiny_window8_256", img_size=64, **STAGES),
    "Hiera": small("hiera_tiny_224", img_size=64, embed_dim=16, stages=(1, 1, 1, 1)),
    "SAM": small("samvit_base_patch16", **TINY, window_size=3, global_attn_indexes=(1,)),
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
    for name in (family.patches, family.projection, family.final_norm(vit, "fc_norm"), *family.operations_of(vit)):
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
    kinds = (nn.Linear, nn.Conv2d, *NORMS)
    rest = [name for name, op in vit.named_modules() if isinstance(op, kinds) and name in running and name not in known]
    inside = {name: next((f"{block}." for block in blocks(vit) if is_inside(name, block)), "") for name in rest}
    assert not [name for name in rest if not re.fullmatch(family.others, name.removeprefix(inside[name]))]


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
