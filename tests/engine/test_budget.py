"""SOLVER.MEMORY_GB: what a step takes is predicted to the byte, and a run stays within its budget."""

import re

import pytest
import timm
import torch
from conftest import make_cfg, make_vit
from fvcore.common.config import CfgNode
from runs import quick
from torch import nn
from torch.profiler import ProfilerActivity, profile

from src.api import tune
from src.engine.budget import Choice, NoRoom, plan
from src.engine.held import hold
from src.engine.memory import Live
from src.engine.run import run
from src.engine.step import TrainingStep
from src.engine.step_memory import Predicted, workspace
from src.engine.what_to_keep import set_recompute
from src.models.vit_models import TunedViT
from src.solver.losses import build_loss
from src.solver.optimizer import build_optimizer

CPU = torch.device("cpu")
SWIN = dict(img_size=32, patch_size=2, window_size=4, embed_dim=16, depths=(1, 1), num_heads=(1, 2))
CONVNEXT = dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 16))


def network(family: str) -> nn.Module:
    if family == "swin":
        return timm.models.SwinTransformer(**SWIN, num_classes=0)
    return timm.models.ConvNeXt(**CONVNEXT, num_classes=0) if family == "convnext" else make_vit(depth=2)


def settings(**keys) -> CfgNode:
    own = {"DATA__CROPSIZE": 32, "DATA__BATCH_SIZE": 8, "DATA__DROP_LAST": True, "SOLVER__OPTIMIZER": "adamw"}
    return make_cfg(**(own | keys))


def ready(cfg: CfgNode, model: TunedViT) -> TrainingStep:
    """A step whose optimizer has its states."""
    set_recompute(cfg, model, CPU)
    hold(model, cfg, CPU)
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER, model=model)
    step = TrainingStep(cfg, model.train(), optimizer, build_loss("softmax", None, 0.0), CPU)
    step(torch.randn(8, 3, 32, 32), torch.zeros(8, dtype=torch.int64))
    optimizer.zero_grad()
    return step


def states(step: TrainingStep) -> list[torch.Tensor]:
    return [t for own in step.optimizer.state.values() for t in own.values()]


def weights(model: nn.Module) -> int:
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def counted(step: TrainingStep, images: int) -> int:
    """Bytes of a real step."""
    with Live(step.network, *states(step)) as live:
        step(torch.randn(images, 3, 32, 32), torch.zeros(images, dtype=torch.int64))
    return weights(step.network) + sum(t.nbytes for t in states(step)) + live.peak


@pytest.mark.parametrize(
    ("names", "family", "pieces", "keys"),
    [
        ("end2end", "vit", 3, {}),
        ("end2end", "vit", 1, {"SOLVER__CLIP_GRAD": 1.0}),
        ("lora+freqfit", "vit", 1, {"SOLVER__AMP": "bf16"}),
        ("ssf", "vit", 3, {"MODEL__RECOMPUTE": "auto"}),
        ("prompt+adapter", "vit", 1, {"MODEL__RECOMPUTE": "blocks"}),
        ("linear", "vit", 1, {"SOLVER__OPTIMIZER": "sgd"}),
        ("tinytl-bias", "swin", 1, {}),
        ("lora", "swin", 3, {"SOLVER__AMP": "bf16"}),
        ("ssf", "convnext", 1, {}),
        ("end2end", "convnext", 3, {"MODEL__RECOMPUTE": "blocks"}),
    ],
)
def test_a_step_takes_what_was_predicted(names, family, pieces, keys):
    cfg, model = settings(**keys, SOLVER__ACCUMULATE=pieces), tune(network(family), names, num_classes=5)
    predicting = Predicted(cfg, model, (32, 32), CPU)
    set_recompute(cfg, predicting.shadow, CPU)
    predicted = predicting.step(9, pieces)
    before = weights(model)
    step = ready(cfg, model)
    waiting = 2 * (before - weights(model))  # float32 values of what is held in half as many bytes
    assert predicted.weights == weights(model) + waiting
    assert predicted.peak == pytest.approx(waiting + counted(step, 9), rel=0.01)
    assert predicted.activations > 0


def test_the_allocator_says_the_same():
    cfg, model = settings(), tune(network("vit"), "lora", num_classes=5)
    predicted, step = Predicted(cfg, model, (32, 32), CPU).step(32, 1), ready(cfg, model)
    images, labels = torch.randn(32, 3, 32, 32), torch.zeros(32, dtype=torch.int64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        step(images, labels)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    before = weights(model) + sum(t.nbytes for t in (*states(step), images, labels))
    assert predicted.peak == pytest.approx(before + peak, rel=0.05)


def test_evaluation_takes_what_was_predicted():
    cfg, model = settings(), tune(network("vit"), "lora", num_classes=5)
    step = ready(cfg, model)
    with torch.inference_mode(), Live(model) as live:
        model.eval()(torch.randn(16, 3, 32, 32))
    learned = sum(p.nbytes for p in step.trained) + sum(t.nbytes for t in states(step))
    assert Predicted(cfg, model, (32, 32), CPU).evaluation(16) == weights(model) + learned + live.peak


def within(cfg: CfgNode, model: TunedViT, gigabytes: float):
    """The plan for a budget."""
    cfg.SOLVER.MEMORY_GB = gigabytes
    return plan(cfg, model, CPU)


def test_on_a_gpu_cublas_works_in_memory_of_its_own(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for capability, size in (((9, 0), 32 * 2**20), ((8, 0), 8 * 2**20 + 128 * 2**10)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        assert workspace(gpu) == size
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert (workspace(gpu), workspace(torch.device("cpu"))) == (128 * 2**10, 0)


def test_a_batch_is_split_before_anything_is_computed_twice():
    cfg, model = settings(DATA__BATCH_SIZE=16), tune(network("vit"), "ssf", num_classes=5)
    whole = within(cfg, model, 1.0)
    assert (whole.choice, whole.images, whole.features) == (Choice("off", 1), 16, True)
    seen = [whole.choice]
    for share in (0.7, 0.4, 0.25):
        made = within(cfg, model, share * whole.step.peak / 2**30)
        assert made.peak <= share * whole.step.peak
        seen.append(made.choice)
    assert seen[1:] == [Choice("off", 2), Choice("off", 4), Choice("auto", 8)]
    assert [choice.slowness(16) for choice in seen] == sorted(choice.slowness(16) for choice in seen)


def test_where_nothing_fits_the_budget_that_would_is_named():
    cfg = settings(DATA__DROP_LAST=False, MODEL__RECOMPUTE="blocks")
    model = tune(make_vit(embed_dim=512, depth=2), "lora", num_classes=5)
    with pytest.raises(NoRoom, match=r"SOLVER\.MEMORY_GB 0\.02 is too little: a step takes at least") as caught:
        within(cfg, model, 0.02)
    enough = float(re.search(r"Set SOLVER\.MEMORY_GB ([\d.]+)", str(caught.value))[1])
    assert within(cfg, model, enough).peak <= enough * 2**30
    with pytest.raises(NoRoom):
        within(cfg, model, enough - 0.01)


def test_what_the_settings_say_is_kept():
    own = {"SOLVER__ACCUMULATE": 2, "MODEL__RECOMPUTE": "auto", "DATA__EVAL_BATCH_SIZE": 3}
    cfg, model = settings(**own), tune(network("vit"), "ssf", num_classes=5)
    made = within(cfg, model, 1.0)
    assert (made.choice, made.images) == (Choice("auto", 2), 3)
    with pytest.raises(NoRoom, match=r"RECOMPUTE auto, SOLVER\.ACCUMULATE 2; .* DATA\.EVAL_BATCH_SIZE 3"):
        within(cfg, model, 0.0005)


def test_a_logistic_regression_has_no_steps_to_plan():
    cfg, model = settings(SOLVER__OPTIMIZER="lbfgs"), tune(network("vit"), "linear", num_classes=5)
    whole = within(cfg, model, 1.0)
    assert whole.settings == {"DATA.EVAL_BATCH_SIZE": 8}
    less = within(cfg, model, 0.7 * whole.peak / 2**30)
    assert less.settings == {"DATA.EVAL_BATCH_SIZE": 4, "DATA.CACHE_FEATURES": "off"}


def test_batch_norms_that_train_are_not_given_pieces_of_a_batch():
    cfg = settings(DATA__BATCH_SIZE=64)
    model = tune(network("vit"), "linear", num_classes=5, mlp_num=1)
    with pytest.raises(NoRoom, match=r"cannot be split, since the batch norm head\.\S+ compares its images"):
        within(cfg, model, 0.001)


def test_a_run_stays_within_its_budget_and_learns_the_same(tmp_path):
    keys = ["MODEL.TRANSFER_TYPE", "lora", "SOLVER.MAX_STEPS", "2", "DATA.CROPSIZE", "32", "DATA.PERCENTAGE", "0.2"]
    keys += ["DATA.TRAIN_SPLIT", "train", "DATA.NO_TEST", "True"]
    (free, one), (bound, other) = (
        quick(tmp_path / name, *keys, "SOLVER.MEMORY_GB", budget) for name, budget in (("free", "0"), ("bound", "0.02"))
    )
    free, bound = run(free, one), run(bound, other)
    assert bound["cost"]["plan"]["SOLVER.ACCUMULATE"] > 1
    assert bound["cost"]["predicted_peak_bytes"] <= 0.02 * 2**30
    assert free["cost"]["activation_bytes_per_image"] > 2**20
    assert bound["train_loss"] == pytest.approx(free["train_loss"], rel=1e-4)
    assert one.path.name == other.path.name  # a budget belongs to the machine
    with pytest.raises(NoRoom):
        run(*quick(tmp_path / "none", *keys, "MODEL.RECOMPUTE", "blocks", "SOLVER.MEMORY_GB", "0.001"))
