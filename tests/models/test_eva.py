"""Rotary positions: prompts have none, blocks are called with theirs, and the rest of ViTune works as on any ViT."""

import pytest
import timm
import torch
from conftest import make_model, randomise

from src.models.merge import load_merged, merged_state_dict
from src.models.prefix import frozen_prefix
from src.models.vit_backbones.from_timm import create
from src.models.vit_models import TunedViT
from src.models.wise import without_methods
from src.tools.attention.maps import maps_of

SMALL = dict(img_size=64, depth=3, embed_dim=32, num_heads=2, num_classes=0)
NAMES = (
    "vit_small_patch16_dinov3",  # axial, registers, no bias of q, k and v
    "vit_small_plus_patch16_dinov3_qkvb",  # biases apart, SwiGLU
    "vit_small_patch16_rope_mixed_ape_224",  # each block's own learned rotation
    "vit_pe_core_tiny_patch16_384",  # attention pooling
)


def make_eva(name: str = NAMES[0], **arguments) -> torch.nn.Module:
    torch.manual_seed(1)
    vit = timm.create_model(name, **{**SMALL, **arguments})
    for param in vit.parameters():
        param.data.add_(0.05 * torch.randn_like(param))
    return vit.eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", NAMES[:3])
def test_prompts_are_not_rotated_and_patches_are_as_before(name, deep, images):
    """As if there were as many more prefix tokens, which timm does not rotate."""
    model = make_model("prompt", vit=make_eva(name), MODEL__PROMPT__DEEP=deep, MODEL__PROMPT__DROPOUT=0.0)
    other = make_eva(name)
    prompts = [tap.prompts for tap in model.methods["prompt"].taps if hasattr(tap, "prompts")]
    prefix, count = other.num_prefix_tokens, prompts[0].shape[1]
    x = other.norm_pre(other._pos_embed(other.patch_embed(images))[0])
    rope = other._pos_embed(other.patch_embed(images))[1]
    for i, block in enumerate(other.blocks):
        block.attn.num_prefix_tokens = prefix + count
        if i == 0 or deep:
            rest = x[:, -16:]
            x = torch.cat((x[:, :prefix], prompts[i if deep else 0].expand(2, -1, -1), rest), dim=1)
        x = block(x, rope=rope[i] if other.rope_mixed else rope)
    torch.testing.assert_close(model.vit.forward_features(images), other.norm(x), atol=1e-5, rtol=1e-5)


def test_without_prompts_the_network_is_itself_again(images):
    model = make_model("prompt", vit=make_eva())
    plain = make_eva()
    with torch.no_grad(), without_methods(model):
        torch.testing.assert_close(model.pooled(images), plain.forward_head(plain.forward_features(images)))


@pytest.mark.parametrize("name", NAMES)
def test_biases_apart_change_nothing(name, images):
    """Attention then calls its map and adds the biases, where timm reads the weight."""
    plain = make_eva(name)
    expected = plain.forward_head(plain.forward_features(images), pre_logits=True)
    torch.testing.assert_close(make_model("linear", vit=make_eva(name)).features(images), expected)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_blocks_are_computed_once(name, images):
    model = make_model("partial", vit=make_eva(name))
    randomise(model)
    prefix = frozen_prefix(model, images)
    assert prefix.name == "blocks.1"
    torch.testing.assert_close(prefix.suffix(prefix(images)), model(images))


@pytest.mark.parametrize("name", NAMES)
def test_a_new_block_is_called_with_the_positions_of_the_block_before_it(name, images):
    model = make_model("block", vit=make_eva(name))
    assert torch.equal(model.features(images), make_model("linear", vit=make_eva(name)).features(images))
    randomise(model)
    plain = make_eva(name, depth=4)
    load_merged(plain, merged_state_dict(model))
    pooled = plain.forward_head(plain.forward_features(images), pre_logits=True)
    torch.testing.assert_close(pooled, model.features(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("methods", ["lora+prompt", "ssf", "adaptformer"])
def test_checkpointing_and_one_graph(methods, images):
    def gradients(model: TunedViT, network) -> dict:
        network(images).square().sum().backward()
        found = {name: param.grad.clone() for name, param in model.named_parameters() if param.grad is not None}
        model.zero_grad()
        return found

    model = make_model(methods, vit=make_eva(NAMES[1]))
    randomise(model)
    model.eval()
    expected = gradients(model, model)
    model.vit.set_grad_checkpointing()
    for name, grad in gradients(model, model).items():
        torch.testing.assert_close(grad, expected[name])
    model.vit.set_grad_checkpointing(False)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(gradients(model, compiled), expected)


def test_attention_maps_see_prompts_and_registers(images):
    model = make_model("prompt", vit=make_eva()).eval()
    maps = maps_of(model.vit, model.methods, images[:1])
    assert list(maps.blocks) == ["blocks.0", "blocks.1", "blocks.2"]
    assert set(maps.last_others) == {"class token", "registers", "prompts"}
    assert all(0 < shares.sum() < 1 for shares in maps.blocks.values())


@pytest.mark.parametrize("name", [NAMES[0], NAMES[1], "eva02_base_patch14_224", "aimv2_large_patch14_224"])
@pytest.mark.parametrize("methods", ["ssf", "rlrr", "repadapter"])
def test_a_shift_gets_a_bias_where_there_is_none(name, methods, images):
    model = make_model(methods, vit=make_eva(name, img_size=56) if "14" in name else make_eva(name))
    randomise(model)
    images = images[..., :56, :56] if "14" in name else images
    if "aimv2" in name and methods != "repadapter":
        with pytest.raises(ValueError, match=r"the backbone alone: its last norm has no bias .* only the head has one"):
            merged_state_dict(model)
        return
    state = merged_state_dict(model)
    plain = make_eva(name, img_size=56) if "14" in name else make_eva(name)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*bias"):
        plain.load_state_dict(state)
    load_merged(plain, state)
    pooled = plain.forward_head(plain.forward_features(images), pre_logits=True)
    torch.testing.assert_close(pooled, model.features(images), atol=1e-4, rtol=1e-4)


def test_one_down_matrix_for_three_maps_is_refused():
    with pytest.raises(ValueError, match=r"SHARE_A needs q, k and v in one linear map, and blocks\.0\.attn\.q_proj"):
        make_model("lora", vit=make_eva("eva02_base_patch14_224", img_size=56), MODEL__LORA__SHARE_A=True)


def test_backbones_of_one_size_keep_their_rotations(images):
    """timm makes DINOv3's anew in every forward, on the CPU, for which a GPU waits: the same numbers, made once."""
    vit = make_eva()
    own = create(NAMES[0], (64, 64), **{name: SMALL[name] for name in ("depth", "embed_dim", "num_heads")}).eval()
    own.load_state_dict(vit.state_dict())
    assert vit.dynamic_img_size
    assert own.rope.pos_embed_cached.shape[0] == 16
    torch.testing.assert_close(own(images), vit(images), rtol=0, atol=0)
