"""Families of networks: each is described in one class, and one more class lets methods work on other networks."""

import pytest
import timm
import torch
from conftest import make_model, make_vit, randomise
from timm.models.vision_transformer_relpos import RelPosBlock, ResPostRelPosBlock, VisionTransformerRelPos

from src.models import families
from src.models.families import FAMILIES, family_of
from src.models.families.vision_transformer import ViT
from src.models.merge import merged_state_dict
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


class RelPosFamily(ViT):
    """What would stand in a file of its own: a ViT without class token whose attention adds relative positions."""

    title = "ViT with relative positions"
    network = VisionTransformerRelPos
    timm_modules = ("vision_transformer_relpos",)
    others = r"attn\.rel_pos\..*"
    norm_after = (ResPostRelPosBlock,)
    residual = (RelPosBlock,)


def relpos() -> VisionTransformerRelPos:
    torch.manual_seed(1)
    return timm.create_model(
        "vit_relpos_small_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0
    ).eval()


@pytest.mark.parametrize("methods", ["lora+layernorm", "adapter", "ssf", "end2end", "freqfit_real", "block"])
def test_a_family_is_one_class_and_one_line(methods, monkeypatch, images):
    if methods in ("adapter", "freqfit_real", "block"):
        with pytest.raises(ValueError, match="VisionTransformerRelPos"):
            make_model(methods, vit=relpos())
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, RelPosFamily()))
    model = make_model(methods, vit=relpos())
    randomise(model)
    model(images).square().sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unreached
    if methods.startswith("lora"):
        plain = relpos()
        plain.load_state_dict(merged_state_dict(model))
        features = plain.forward_head(plain.forward_features(images), pre_logits=True)
        torch.testing.assert_close(features, model.features(images), atol=1e-4, rtol=1e-4)
