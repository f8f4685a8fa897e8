"""Frozen weights in the type that autocast multiplies them in: every result is the same to the bit."""

import copy
from contextlib import nullcontext

import pytest
import torch
from conftest import make_cfg, randomise
from methods import build

from src.engine.checkpoint import fingerprint
from src.engine.held import held, only_multiplied
from src.engine.step import TrainingStep
from src.models.merge import merged_state_dict
from src.models.vit_models import METHODS
from src.solver.losses import build_loss
from src.solver.optimizer import build_optimizer

CPU = torch.device("cpu")


@pytest.fixture
def cfg():
    return make_cfg(SOLVER__AMP="bf16", SOLVER__OPTIMIZER="adamw", DATA__CROPSIZE=32)


def after_steps(model, cfg, images, hold: bool) -> dict[str, torch.Tensor]:
    """Everything that two steps and an evaluation make."""
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER, model=model)
    step = TrainingStep(cfg, model, optimizer, build_loss("softmax", None, 0.0), CPU)
    model.train()
    torch.manual_seed(0)
    with held(model, cfg, CPU) if hold else nullcontext():
        losses = torch.stack([step(images, torch.tensor([0, 1])) for _ in range(2)])
        model.eval()
        with torch.inference_mode(), step.autocast:
            logits = model(images)
    return {"losses": losses, "logits": logits, **model.state_dict()}


@pytest.mark.parametrize("name", METHODS)
def test_what_is_learned_is_the_same_to_the_bit(name, cfg, images):
    model = build(name)
    randomise(model, 0.05)
    expected = after_steps(copy.deepcopy(model), cfg, images, hold=False)
    found = after_steps(model, cfg, images, hold=True)
    assert all(torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype for key, tensor in expected.items())


def test_half_the_memory_is_given_back_and_every_value_returns(cfg):
    model = build("lora+bias")
    before, merged = {name: p.detach().clone() for name, p in model.named_parameters()}, merged_state_dict(model)
    size = sum(p.nbytes for p in model.vit.parameters())
    with held(model, cfg, CPU):
        assert sum(p.nbytes for p in model.vit.parameters()) < 0.53 * size
        kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert kinds["vit.blocks.0.attn.qkv.weight"] == kinds["vit.patch_embed.proj.weight"] == torch.bfloat16
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {kinds[name] for name in (*trained, "vit.norm.weight", "vit.pos_embed")} == {torch.float32}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(tensor, merged[name]) for name, tensor in merged_state_dict(model).items())


def test_an_error_gives_the_values_back_too(cfg):
    model = build("linear")
    before = fingerprint(model)
    with pytest.raises(KeyError), held(model, cfg, CPU):
        raise KeyError
    assert fingerprint(model) == before


def test_what_a_method_reads_itself_stays_as_it_is(cfg):
    names = only_multiplied(build("spt_adapter"), cfg, CPU)
    assert "vit.patch_embed.proj.weight" in names
    assert len(names) < len(only_multiplied(build("linear"), cfg, CPU))


def test_nothing_is_held_without_autocast(cfg):
    cfg.SOLVER.AMP = "off"
    model = build("lora")
    with held(model, cfg, CPU):
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_model_that_shapes_alone_cannot_run_stays_as_it_is(cfg, monkeypatch):
    model = build("lora")
    monkeypatch.setattr(type(model.vit), "forward_features", lambda self, x: x[: int(x.sum())])
    assert only_multiplied(model, cfg, CPU) == []
