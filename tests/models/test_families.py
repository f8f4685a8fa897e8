"""Families of networks: each is described in one class, and one more class lets methods work on other networks."""

import pytest
import timm
from conftest import make_vit

from src.models.families import FAMILIES, family_of
from src.models.method import called
from src.models.sites import block_sites, blocks

SMALL = {
    "ViT": make_vit,
    "Eva": lambda: timm.create_model("vit_small_patch16_dinov3_qkvb", img_size=64, depth=2, num_classes=0),
    "Swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1), num_classes=0),
    "ConvNeXt": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), num_classes=0),
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
    weights = {name for name, _ in vit.named_parameters()}
    assert weights == {name for name in weights if any(name == part or name.startswith(f"{part}.") for part in used)}
