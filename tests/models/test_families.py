"""Families of networks: each is described in one class, and one more class lets methods work on other networks."""

import pytest
import timm
import torch
from conftest import make_model, make_vit, randomise
from timm.models.eva import Eva

from src.models import families
from src.models.families import FAMILIES, family_of
from src.models.families.base import Family, Tokens
from src.models.merge import merged_state_dict
from src.models.method import called
from src.models.sites import block_sites, blocks

SMALL = {
    "ViT": make_vit,
    "Swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1), num_classes=0),
    "ConvNeXt": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), num_classes=0),
}
ROLES = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


@pytest.mark.parametrize("family", FAMILIES, ids=[family.title for family in FAMILIES])
def test_what_a_family_names_is_in_its_networks_and_runs(family):
    vit = SMALL[family.title]()
    assert family_of(vit) is family
    modules, running = dict(vit.named_modules()), called(vit)
    assert blocks(vit)
    for role in ROLES:
        if not family.lacks(role):
            assert set(block_sites(vit, [role])) <= running
    for name in (family.patches, family.projection, family.final_norm(vit, "fc_norm"), *family.operations_of(vit)):
        assert name in modules, name
        assert name in running, name
    used = [part for stage in family.stages(vit) for part in stage.parts]
    weights = {name for name, _ in vit.named_parameters()}
    assert weights == {name for name in weights if any(name == part or name.startswith(f"{part}.") for part in used)}


class EvaFamily(Family):
    """What would stand in a file of its own."""

    title = "Eva"
    network = Eva
    timm_modules = ("eva",)
    block = r"blocks\.\d+"
    operations = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    other_operations = r"patch_embed\.proj"
    sequence = True

    def tokens(self, vit, pool):
        rows, cols = vit.patch_embed.grid_size
        patch = vit.patch_embed.patch_size
        return Tokens(vit.num_prefix_tokens, rows, cols, vit.embed_dim, len(vit.blocks), pool=pool, patch=patch)


def eva() -> Eva:
    torch.manual_seed(1)
    tiny = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0, global_pool="token")
    return Eva(**tiny, qkv_fused=True, qkv_bias=False, swiglu_mlp=False).eval()


@pytest.mark.parametrize("methods", ["lora+layernorm", "adapter", "ssf", "end2end", "prompt"])
def test_a_family_is_one_class_and_one_line(methods, monkeypatch, images):
    with pytest.raises(ValueError, match="this is a Eva"):
        make_model(methods, vit=eva())
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, EvaFamily()))
    model = make_model(methods, vit=eva())
    randomise(model)
    model(images).square().sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unreached
    if methods.startswith("lora"):
        plain = eva()
        plain.load_state_dict(merged_state_dict(model))
        features = plain.forward_head(plain.forward_features(images), pre_logits=True)
        torch.testing.assert_close(features, model.features(images), atol=1e-4, rtol=1e-4)
