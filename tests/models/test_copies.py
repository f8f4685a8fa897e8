"""src.models.copies: models that are made of one network share its memory, and none of them changes another."""

import copy
import pickle

import pytest
import timm
import torch
from conftest import make_allocation, make_vit
from torch import nn

from src.api import load, merged_state_dict, save, tune
from src.engine import checkpoint
from src.models.copies import share, sharing_copy
from src.models.vit_models import METHODS, TunedViT

SMALL = {"side": {"weights": ""}, "fft": {"freq": 300}, "vera": {"r": 8}}


def tuned(vit: nn.Module, name: str, **keys) -> TunedViT:
    own = dict(SMALL.get(name, {}))
    if name.startswith("spt_"):
        from src.configs.config import get_cfg

        own["allocation"] = make_allocation(vit, METHODS[name].rules(get_cfg().MODEL[name.upper()], vit))
    return tune(vit, name, num_classes=3, **({name: own} if own else {}), **keys)


def train(model: nn.Module, images: torch.Tensor) -> None:
    """Two steps."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model.train()(images).square().sum().backward()
        optimizer.step()


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def shared(model: TunedViT, vit: nn.Module) -> set[str]:
    """Names of the ViT's tensors that take no memory of their own in the model."""
    whole = vit.state_dict()
    return {name for name, tensor in model.vit.state_dict().items() if share(tensor, whole[name])}


@pytest.mark.parametrize("name", ["linear", "cls-reinit", *METHODS])
def test_no_method_changes_the_network_or_another_model_of_it(name, images, tmp_path):
    vit = make_vit()
    before, other = values(vit), tuned(vit, "tinytl-bias").eval()
    expected = other(images)
    model = tuned(vit, name)
    train(model, images)
    model.eval()
    if not any(METHODS[own].folds is False for own in model.methods):
        merged_state_dict(model)
    save(model, tmp_path / "tuned.safetensors")
    assert torch.equal(load(tmp_path / "tuned.safetensors", vit)(images), model(images))
    assert same(vit, before)
    assert torch.equal(other(images), expected)
    trained = {name for name, param in model.vit.named_parameters() if param.requires_grad}
    assert shared(model, vit) == before.keys() - trained
    assert shared(other, vit) == before.keys()  # it was not trained


def test_statistics_of_batch_norms_are_a_models_own():
    vit = timm.create_model("resnet10t").eval()
    before, model = values(vit), tune(vit, "end2end", num_classes=3)
    other = tune(vit, "tinytl-bias", num_classes=3)
    train(model, torch.randn(2, 3, 64, 64))
    assert same(vit, before)
    assert not any(torch.equal(t, before[n]) for n, t in model.vit.state_dict().items() if "running" in n)
    assert shared(other, vit) == other.vit.state_dict().keys()


def test_what_is_done_by_hand_stays_where_it_is_done(images):
    vit = make_vit()
    before = values(vit)
    trained, loaded, edited, other = (tune(vit, "lora", num_classes=3) for _ in range(4))
    trained.vit.requires_grad_(True)
    train(trained, images)
    loaded.vit.load_state_dict({name: tensor + 1 for name, tensor in before.items()})
    edited.vit.blocks[0].norm1.weight.data += 1
    assert same(vit, before)
    assert same(other.vit, before)
    assert all(not torch.equal(t, before[n]) for n, t in trained.vit.state_dict().items())
    assert torch.equal(edited.vit.blocks[0].norm1.weight, before["blocks.0.norm1.weight"] + 1)
    train(vit, images)  # the network itself
    assert same(other.vit, before)


def test_a_peft_initialisation_that_changes_weights_is_refused_before_it_does():
    vit = make_vit()
    before = values(vit)
    with pytest.raises(ValueError, match="changes the frozen weights"):
        tune(vit, "peft", num_classes=3, peft={"type": "LORA", "kwargs": {"init_lora_weights": "pissa"}})
    assert same(vit, before)


def test_a_model_is_moved_copied_and_pickled_as_any_other(images):
    vit = make_vit()
    before, model = values(vit), tune(vit, "lora+ssf", num_classes=3).eval()
    expected = model(images)
    assert shared(model.to("cpu"), vit) == before.keys()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(images), expected)
        train(again, images)
    assert model.double().eval()(images.double()).dtype == torch.float64
    assert same(vit, before)


def test_tied_weights_stay_tied_and_are_no_longer_the_originals():
    pair = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    pair[1].weight = pair[0].weight
    made = sharing_copy(pair)
    assert made[0].weight is made[1].weight
    assert made[0].weight is not pair[0].weight
    assert made[0].weight.requires_grad


def test_a_network_that_torch_cannot_share_is_copied(images, monkeypatch):
    def refuse(tensor):
        raise RuntimeError("memory of another owner")

    vit = make_vit()
    before = values(vit)
    monkeypatch.setattr(torch, "_lazy_clone", refuse)
    model = tune(vit, "end2end", num_classes=3)
    assert not shared(model, vit)
    train(model, images)
    assert same(vit, before)


def test_frozen_weights_are_hashed_once_for_all_models_that_share_them(tmp_path, monkeypatch):
    hashed, vit, path = [], make_vit(), tmp_path / "tuned.safetensors"
    monkeypatch.setattr(checkpoint, "hash_of", lambda tensors, own=checkpoint.hash_of: hashed.append(1) or own(tensors))
    save(tune(vit, "lora", num_classes=3), path)
    for _ in range(3):
        load(path, vit)
    assert len(hashed) == 1
    vit.blocks[0].norm1.weight.data[0] += 0.1
    with pytest.raises(checkpoint.CheckpointError, match="other weights"):
        load(path, vit)
    vit.blocks[0].norm1.weight.data[0] -= 0.1
    model = load(path, make_vit())
    model.vit.blocks[0].norm1.weight.data[0] += 0.1
    save(model, tmp_path / "other.safetensors")
    with pytest.raises(checkpoint.CheckpointError, match="other weights"):
        load(tmp_path / "other.safetensors", make_vit())
