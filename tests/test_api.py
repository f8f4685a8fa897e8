"""src.api: a network in memory is tuned, saved, loaded and merged in one call each, with the configs' errors."""

import pytest
import timm
import torch
from conftest import make_vit, randomise
from runs import quick
from timm.models.vision_transformer import VisionTransformer

from src.api import find_allocation, load, merged_state_dict, save, tune
from src.engine.checkpoint import CheckpointError, load_tuned
from src.engine.run import run
from src.models.vit_backbones.build import build_backbone
from src.models.vit_models import METHODS


def test_the_vit_stays_as_it_is_and_may_be_tuned_again(images):
    vit = make_vit(num_classes=3)
    before = {n: p.clone() for n, p in vit.named_parameters()}
    output = vit(images)
    models = [tune(vit, "lora+freqfit"), tune(vit, "ssf+prompt"), tune(vit, "block_tuning")]
    for model in models:
        randomise(model)
        model.train()(images).sum().backward()
    assert torch.equal(vit(images), output)
    assert all(torch.equal(p, before[n]) and p.grad is None and p.requires_grad for n, p in vit.named_parameters())
    assert len({model.eval()(images).sum().item() for model in models}) == 3


class TwoHeaded(VisionTransformer):
    """Its logits also take in what a second head makes of the patches, as VOLO's do."""

    def forward(self, x):
        x = self.forward_features(x)
        return self.forward_head(x) + x[:, 1:].amax((1, 2))[:, None]


def test_a_head_that_is_not_all_there_is_to_the_logits_is_not_kept():
    vit = TwoHeaded(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=3)
    with pytest.raises(ValueError, match=r"there is more to the network's logits than this head. Give num_classes"):
        tune(vit, "lora")
    assert tune(vit, "lora", 3).num_classes == 3


@pytest.mark.parametrize("count", [-1, "3", 3.5, True])
def test_a_number_of_classes_is_a_whole_number(count):
    with pytest.raises(ValueError, match=r"num_classes is .*: give a number of classes"):
        tune(make_vit(), "lora", count)


def test_its_own_head_goes_on_or_a_new_one_or_none(images):
    vit = make_vit(num_classes=3)
    torch.testing.assert_close(tune(vit, "lora").eval()(images), vit(images), atol=1e-6, rtol=0)
    assert tune(vit, "lora", num_classes=7)(images).shape == (2, 7)
    features = tune(vit, "lora", num_classes=0).eval()(images)
    pooled = vit.forward_head(vit.forward_features(images), pre_logits=True)
    torch.testing.assert_close(features, pooled, atol=1e-6, rtol=0)
    assert tune(make_vit(), "lora")(images).shape == (2, 32)
    with pytest.raises(ValueError, match="give num_classes"):
        tune(vit, "vqt")


def test_a_call_is_reproducible_and_leaves_random_numbers_alone():
    vit = make_vit()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, two, other = (tune(vit, "lora+freqfit", num_classes=3, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("methods", ["lora+freqfit", "ssf+prompt", "partial-2+adapter", "peft+block", "linear"])
def test_what_was_learned_is_saved_and_loaded(methods, tmp_path, images):
    vit = make_vit()
    peft = {"type": "loha", "kwargs": {"r": 2}}
    model = tune(vit, methods, num_classes=3, head_init="zero", mlp_num=1, peft=peft)
    randomise(model)
    save(model, tmp_path / "tuned.safetensors", ["a", "b", "c"])
    assert torch.equal(load(tmp_path / "tuned.safetensors", vit)(images), model.eval()(images))
    assert load_tuned(tmp_path / "tuned.safetensors", vit=vit).class_names == ["a", "b", "c"]
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        save(model, tmp_path / "other.safetensors", ["a", "b"])
    with pytest.raises(CheckpointError, match=r"vitune\.load"):
        load_tuned(tmp_path / "tuned.safetensors")
    other = make_vit()
    other.blocks[0].norm1.weight.data += 0.1
    with pytest.raises(CheckpointError, match="other weights"):
        load(tmp_path / "tuned.safetensors", other)


def test_what_a_run_learned_goes_on_a_network_in_memory(tmp_path):
    cfg, folder = quick(tmp_path, "DATA.CROPSIZE", "32", "MODEL.TRANSFER_TYPE", "lora", "SOLVER.TOTAL_EPOCH", "1")
    run(cfg, folder)
    images = torch.randn(2, 3, 32, 32)
    vit = build_backbone("vit_micro_glyphs", "pretrained", (32, 32))
    assert torch.equal(load(folder.tuned, vit)(images), load_tuned(folder.path).model(images))


def test_merging_gives_a_plain_state_dict(images):
    vit = make_vit()
    model = tune(vit, "lora+ssf", num_classes=0).eval()
    randomise(model)
    vit.load_state_dict(merged_state_dict(model))
    torch.testing.assert_close(vit(images), model(images), atol=1e-5, rtol=1e-4)


def test_spt_from_batches_in_memory(tmp_path, images):
    vit = make_vit()
    batches = [(images, torch.tensor([0, 1])), (images.flip(3), torch.tensor([2, 0]))]
    made = find_allocation(vit, "spt_lora", batches, 3, tmp_path / "a.safetensors", budget=0.002, rank=2)
    model = tune(vit, "spt_lora+freqfit", 3, spt_lora={"allocation": str(tmp_path / "a.safetensors"), "rank": 2})
    trained = model.num_trained()
    assert abs(trained["spt_lora"] + trained["vit"] - made.about["total"]) <= model.methods["spt_lora"].dropped
    randomise(model)
    save(model, tmp_path / "tuned.safetensors")
    (tmp_path / "a.safetensors").unlink()
    assert torch.equal(load(tmp_path / "tuned.safetensors", vit)(images), model.eval()(images))


@pytest.mark.parametrize(
    ("methods", "keys", "says"),
    [
        ("lroa", {}, "did you mean lora"),
        ("lora", {"lora": {"rnk": 2}}, r"MODEL\.LORA\.RNK in the call; did you mean MODEL\.LORA\.RANK"),
        ("lora", {"lora": {"rank": 0}}, "must be at least 1"),
        ("lora", {"lora": {"rank": "two"}}, "must be a whole number"),
        ("lora", {"head_init": "none"}, "HEAD_INIT"),
        ("end2end+lora", {}, "end2end trains every weight"),
        ("adapter", {"adapter": {"reduction_factor": 64}}, "more than the 32 channels"),
        ("spt_lora", {}, "needs an allocation"),
    ],
)
def test_errors_are_those_of_the_configs(methods, keys, says):
    with pytest.raises(ValueError, match=says):
        tune(make_vit(), methods, num_classes=3, **keys)


def test_what_is_no_float32_network_of_timm_is_refused():
    with pytest.raises(ValueError, match="ResNet"):
        tune(timm.create_model("resnet18"), "lora")
    with pytest.raises(ValueError, match="float32"):
        tune(make_vit().bfloat16(), "lora")


def test_every_method_is_one_call_away(images, tmp_path):
    small = {"side": {"weights": ""}, "fft": {"freq": 300}}  # 3000 are more than 32 x 32 entries
    for name in METHODS:
        keys = {name: small[name]} if name in small else {}
        if name.startswith("spt_"):
            find_allocation(make_vit(), name, [(images, torch.tensor([0, 1]))], 3, tmp_path / name, budget=0.002)
            keys = {name: {"allocation": str(tmp_path / name)}}
        assert tune(make_vit(), name, num_classes=3, **keys)(images).shape == (2, 3)
