"""Swin and ConvNeXt: mixes attach, train, load back and fold; single methods are tested by the matrix."""

import copy

import pytest
import timm
import torch
from conftest import make_model, randomise

from src.models.merge import load_merged, merged_state_dict
from src.models.methods.freqfit import SpectralFilter
from src.models.sites import blocks
from src.models.taps import OnMaps
from src.models.vit_models import METHODS

TINY = {
    "swin": ("swin_tiny_patch4_window7_224", dict(img_size=64, window_size=4, embed_dim=16, num_heads=(1, 2, 2, 4))),
    "convnext": ("convnext_tiny", dict(dims=(8, 16, 24, 32), ls_init_value=0.5)),
}
MIXES = ["lora+ssf", "spt_lora+layernorm+adapter", "repadapter+difffit+lora"]


def make_backbone(family):
    torch.manual_seed(1)
    name, arguments = TINY[family]
    network = timm.create_model(name, num_classes=0, depths=(1, 1, 2, 1), **arguments)
    for param in network.parameters():
        param.data.add_(0.05 * torch.randn_like(param))
    return network.eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("names", MIXES)
def test_mixes_attach_train_load_and_fold(family, names, images):
    plain = make_backbone(family)
    small = {"MODEL__FFT__FREQ": 30}  # there are not 3000 entries in every weight
    model = make_model(names, vit=make_backbone(family), **small)
    assert set(model.vit.state_dict()) == set(plain.state_dict())
    randomise(model)
    model(images).square().sum().backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) > 2
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trained

    again = make_model(names, vit=make_backbone(family), **small)
    again.load_tuned_state_dict(copy.deepcopy(model.tuned_state_dict()))
    assert torch.equal(again(images), model(images))

    if not all(METHODS[name].folds for name in model.methods):
        with pytest.raises(ValueError, match="cannot be merged"):
            merged_state_dict(model)
        return
    load_merged(plain, merged_state_dict(model))  # Swin's downsampling gets a bias from SSF's shift
    merged = model.head(plain.forward_head(plain.forward_features(images), pre_logits=True))
    torch.testing.assert_close(merged, model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("transform", ["2d", "1d"])
def test_freqfit_filters_the_maps_of_every_stage(transform, images):
    """As it does a sequence of the same patches."""
    model = make_model("linear", "freqfit", vit=make_backbone("swin"), MODEL__FREQFIT__TRANSFORM=transform)
    taps = model.methods["freqfit"].taps
    assert [tap.tap.fourier.shape for tap in taps] == [
        (side, side) if transform == "2d" else (side * side,) for side in (16, 8, 4, 4, 2, 2)
    ]
    x = torch.randn(2, 8, 8, 32)
    expected = SpectralFilter(taps[1].tap.fourier, 32)
    expected.load_state_dict(taps[1].tap.state_dict())
    torch.testing.assert_close(taps[1](x), expected(x.flatten(1, 2)).view(x.shape))
    first = OnMaps(expected, "first")
    torch.testing.assert_close(first(x.permute(0, 3, 1, 2)), taps[1](x).permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="a ConvNeXt takes images of any size"):
        make_model("linear", "freqfit", vit=make_backbone("convnext"))


@pytest.mark.parametrize("family", TINY)
def test_what_needs_tokens_says_so(family):
    for name, method in METHODS.items():
        if not method.for_any_backbone:
            with pytest.raises(ValueError, match=f"{name} needs the tokens of a ViT.*vitune list methods"):
                make_model(name, vit=make_backbone(family))


def test_blocks_are_found_in_the_order_in_which_they_run():
    assert list(blocks(make_backbone("swin"))) == [
        "layers.0.blocks.0", "layers.1.blocks.0", "layers.2.blocks.0", "layers.2.blocks.1", "layers.3.blocks.0"
    ]  # fmt: skip
