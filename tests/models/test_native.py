"""Images in their own aspect ratios: as patches of a NaFlex network, with all methods that take them so."""

import math
from fractions import Fraction

import pytest
import timm
import torch
from conftest import make_cfg, make_model, make_vit, randomise
from timm.models.naflexvit import batch_patchify
from torch import Tensor, nn

from src.configs.checks import problems
from src.data.pixels import normalise
from src.models.patches import LONGEST, grid_of, image_of, pack, unpack
from src.models.prefix import frozen_prefix
from src.models.vit_models import METHODS, TunedViT, require_methods_fit, require_native

KINDS = {
    "average": ("naflexvit_base_patch16_gap", {}),
    "attention": ("naflexvit_base_patch16_siglip", {}),
    "class token": ("naflexvit_base_patch16_radio_v3", {}),
    "factorised": ("naflexvit_base_patch16_parfac_gap", {}),
    "axial": ("naflexvit_base_patch16_gap", dict(rope_type="axial", class_token=True)),
    "mixed": ("naflexvit_base_patch16_gap", dict(rope_type="mixed", class_token=True, global_pool="token")),
}
PATCH, COUNT = (8, 8), 16


def make_naflex(kind: str = "axial") -> nn.Module:
    name, arguments = KINDS[kind]
    small = dict(img_size=32, patch_size=8, depth=2, embed_dim=32, num_heads=2, num_classes=0)
    torch.manual_seed(1)
    vit = timm.create_model(name, **small, **arguments).eval()
    for param in vit.parameters():
        param.data.add_(0.05 * torch.randn_like(param))
    return vit


def pictures() -> list[Tensor]:
    """Normalised images, wide, tall and square."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator) for size in ((16, 64), (32, 24), (32, 32))]


def packed(count: int = COUNT) -> Tensor:
    return torch.stack([pack(image, PATCH, count) for image in pictures()])


# --- the grid and the patches


def largest(size, patch, count) -> tuple[int, int]:
    """By trying every scale at which a row or column is just full."""
    scales = [Fraction(n * own, side) for n in range(1, count + 1) for own, side in zip(patch, size, strict=True)]
    grids = [(scale, *(math.ceil(scale * s / own) for s, own in zip(size, patch, strict=True))) for scale in scales]
    return max(grid for grid in grids if grid[1] * grid[2] <= count and max(grid[1:]) <= LONGEST)[1:]


@pytest.mark.parametrize("patch", [(16, 16), (8, 14)])
@pytest.mark.parametrize("size", [(224, 224), (375, 500), (500, 333), (20, 31), (1, 9), (4000, 3), (7, 90_000)])
@pytest.mark.parametrize("count", [1, 16, 300])
def test_a_grid_is_the_largest_in_proportion(size, patch, count):
    assert grid_of(size, patch, count) == largest(size, patch, count)


def test_patches_are_timms_and_make_the_image_again():
    image = torch.randint(0, 256, (3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own, seen = pack(image, PATCH, COUNT), unpack(pack(image, PATCH, COUNT)[None])
    theirs, grid = batch_patchify(image[None], PATCH)
    assert own.dtype == torch.uint8
    assert torch.equal(seen["patches"][:, :15], theirs)
    assert torch.equal(seen["patch_coord"][0, :15], torch.cartesian_prod(*map(torch.arange, grid)))
    assert seen["patch_valid"][0].tolist() == [True] * 15 + [False]
    assert torch.equal(image_of(own, PATCH), image)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.25, 1.0]).view(3, 1, 1)
    normal = normalise(own[None], mean, std)[0]
    torch.testing.assert_close(image_of(normal, PATCH), normalise(image[None], mean, std)[0])
    assert not normal[15].any()
    assert torch.equal(normal[:, -3:], own[:, -3:].float())


# --- the network


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_timms_whatever_else_is_in_the_batch(kind):
    vit, x = make_naflex(kind), packed()
    expected = vit(unpack(x))
    model = make_model("linear", vit=vit)
    for again in (model.pooled(x), model.pooled(unpack(x)), torch.cat([model.pooled(one[None]) for one in x])):
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.pooled(packed(40)), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.pooled(pictures()[2][None]), expected[2:], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_prefix_is_found(kind):
    model = make_model("partial-1", vit=make_naflex(kind))
    prefix = frozen_prefix(model, packed())
    assert prefix.name == "blocks.0"
    torch.testing.assert_close(prefix.suffix(prefix(packed())), model(packed()))
    assert frozen_prefix(make_model("linear", vit=make_naflex(kind)), packed()).name == "the pooled features"


# --- methods

SMALL = {"prompt": {"MODEL__PROMPT__DEEP": True}, "fft": {"MODEL__FFT__FREQ": 30}, "vera": {"MODEL__VERA__R": 8}}
REFUSED = {"side", "vqt", "freqfit", "freqfit_real", "convpass"}


def tuned(methods: str, kind: str = "axial", **keys) -> TunedViT:
    model = make_model(methods, vit=make_naflex("attention" if methods == "vqt" else kind), **keys)
    randomise(model)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_a_method_sees_no_padding_or_says_so(name):
    model, x = tuned(name, **SMALL.get(name, {})), packed()
    if name in REFUSED:
        with pytest.raises(ValueError, match=rf"{name}' needs images of one shape"):
            model(x)
        return
    other = torch.where(x[..., -1:] > 0, x, torch.tensor([7.0] * 192 + [0.0] * 3))  # noise in the place of zeros
    for again in (model(other), torch.cat([model(one[None]) for one in x])):
        torch.testing.assert_close(again, model(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(model(pictures()[2][None]), model(x)[2:], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        *((kind, pool) for kind in ("average", "attention") for pool in ("original", "img_pool")),
        ("axial", "imgprompt_pool"),
        ("mixed", "original"),
        ("class token", "prompt_pool"),
    ],
)
def test_prompts_are_read_and_pooled_with_the_image_alone(kind, pool):
    model, x = tuned("prompt", kind, MODEL__PROMPT__VIT_POOL_TYPE=pool), packed()
    torch.testing.assert_close(model(x)[2:], model(pictures()[2][None]), rtol=0, atol=1e-5)
    before = model(x)
    model.methods.prompt.taps[0].prompts.add_(torch.linspace(-1, 1, 32))
    assert not torch.allclose(model(x), before)


def test_what_does_not_go_together_is_refused_before_data_are_read():
    def fit(**keys):
        parts = dict(FEATURE="timm:naflexvit_base_patch16_gap", RESIZE="native", CROPSIZE=64) | keys.pop("DATA", {})
        require_methods_fit(make_cfg(**{f"DATA__{key}": value for key, value in parts.items()}, **keys))

    fit(MODEL__TRANSFER_TYPE="prompt")
    with pytest.raises(ValueError, match=r"are for NaFlex networks.* this is a VisionTransformer: choose crop"):
        fit(DATA=dict(FEATURE="vit_micro_glyphs"))
    with pytest.raises(ValueError, match=r"side' needs images of one shape.*Choose crop or squash"):
        fit(MODEL__TRANSFER_TYPE="side")
    for kind, pool in (("axial", "prompt_pool"), ("class token", "imgprompt_pool"), ("class token", "img_pool")):
        with pytest.raises(ValueError, match=f"VIT_POOL_TYPE {pool} does not tell what only fills up"):
            require_native(tuned("prompt", kind, MODEL__PROMPT__VIT_POOL_TYPE=pool))


def test_augmentation_of_whole_batches_is_refused_by_name():
    def said(**keys):
        return problems(make_cfg(DATA__FEATURE="timm:naflexvit_base_patch16_gap", DATA__RESIZE="native", **keys))

    assert said(DATA__NAME="folder") == []
    (sentence,) = said(DATA__NAME="folder", DATA__MIXUP=0.2, DATA__CUTMIX=1.0)
    assert "mixup, cutmix" in sentence
    assert "set DATA.MIXUP 0 and DATA.CUTMIX 0" in sentence
    (sentence,) = said(DATA__NAME="fgvc-aircraft-fewshot")
    assert "set DATA.RANDOM_ERASING 0" in sentence
    assert said(DATA__NAME="fgvc-aircraft-fewshot", DATA__RANDOM_ERASING=0.0) == []


# --- in memory


@pytest.mark.parametrize(("methods", "freqfit"), [("linear", "freqfit"), ("convpass", ""), ("prompt", "")])
def test_images_of_another_size_than_the_network_is_built_for_are_named(methods, freqfit):
    model = make_model(methods, freqfit, vit=make_naflex("average"))
    model(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"build the network for their size.*img_size=\(height, width\)"):
        model(torch.randn(1, 3, 32, 48))
    make_model("lora", vit=make_naflex("average"))(torch.randn(1, 3, 32, 48))


def test_patches_are_for_naflex_networks():
    with pytest.raises(ValueError, match="for NaFlex networks"):
        make_model("lora", vit=make_vit())(packed())
