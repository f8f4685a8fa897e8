"""The solver's keys against what they are named after: timm, VPT and the methods' original code."""

import math
import random
from pathlib import Path

import pytest
import timm
import torch
import yaml
from conftest import make_cfg, make_model, make_vit
from test_interruptions import SETTINGS, interrupted_at
from test_run import QUICK, same_result
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.utils.data import DataLoader

from src.api import tune
from src.configs.config import ConfigError, changed, load_cfg, load_cfg_text
from src.data.loader import split_batches
from src.engine.results import RunFolder, run_folder
from src.engine.run import run
from src.engine.shared import Shared
from src.engine.trainer import Training
from src.models.head import Head
from src.solver.optimizer import build_optimizer, parameter_groups
from src.utils.signals import Interrupted, StopSignals

DIGITS = ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32", "DATA.PIXELS", "backbone"]
ADAMW = ["SOLVER.OPTIMIZER", "adamw"]


# --- the start of the head


def head_init(*pairs: str, file: str | Path = "", **more) -> str:
    return load_cfg(file, [*pairs] if file else [*DIGITS, *pairs], **more).MODEL.HEAD_INIT


@pytest.mark.parametrize(("optimizer", "start"), [("sgd", "vpt"), ("adam", "zero"), ("adamw", "zero")])
def test_the_head_starts_as_the_optimizer_needs_it(optimizer, start):
    assert head_init("SOLVER.OPTIMIZER", optimizer) == start
    assert head_init("SOLVER.OPTIMIZER", optimizer, "MODEL.HEAD_INIT", "trunc_normal") == "trunc_normal"


@pytest.mark.parametrize(
    "pairs",
    [["NUM_GPUS", "1"], ["MODEL.ADAPTER.REDUCATION_FACTOR", "8"], ["MODEL.PROMPT.LOCATION", "prepend"]],
)
def test_settings_that_only_vpt_and_freqfit_know_keep_vpts_head(pairs):
    assert head_init(*ADAMW, *pairs) == "vpt"
    assert head_init(*ADAMW, *pairs, "MODEL.HEAD_INIT", "linear") == "linear"


def test_vpts_flag_keeps_vpts_head():
    assert head_init(*ADAMW, for_vpt=True) == "vpt"


@pytest.mark.parametrize("kind", ["finetune", "linear", "prompt"])
def test_files_of_vpts_names_keep_vpts_head(kind):
    for file in Path("configs", kind).glob("*.yaml"):
        assert head_init(*ADAMW, file=file) == "vpt"
    assert head_init(*ADAMW, file="configs/vtab.yaml") == "zero"


def test_a_config_says_which_start_acts_and_is_read_the_same():
    cfg = load_cfg("", [*DIGITS, *ADAMW])
    assert yaml.safe_load(cfg.dump())["MODEL"]["HEAD_INIT"] == "zero"
    assert changed(cfg)["MODEL.HEAD_INIT"] == "zero"
    assert load_cfg_text(cfg.dump()) == cfg


def test_a_run_from_before_keeps_its_start_and_its_folder():
    """What did not say it started as VPT does; its folder's name has a hash of what was said."""
    cfg = load_cfg("", [*DIGITS, *ADAMW, "MODEL.HEAD_INIT", "vpt"])
    assert "MODEL.HEAD_INIT" not in changed(cfg)
    assert load_cfg_text(cfg.dump()).MODEL.HEAD_INIT == "vpt"
    assert run_folder(cfg).path.name == "lr0.01_wd0.0001_seed42_9a553830"  # as commit 3b6873a names it


def test_every_start_is_the_one_it_is_named_after():
    starts = {}
    for name in ("zero", "linear", "trunc_normal"):
        torch.manual_seed(5)
        starts[name] = Head(64, 1000, init=name).last_layer
    torch.manual_seed(5)
    theirs = nn.Linear(64, 1000)
    torch.testing.assert_close(starts["linear"].weight, theirs.weight, rtol=0, atol=0)
    torch.testing.assert_close(starts["linear"].bias, theirs.bias, rtol=0, atol=0)
    assert starts["trunc_normal"].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not starts["trunc_normal"].bias.any()
    assert not any(param.any() for param in starts["zero"].parameters())


def test_a_vit_in_memory_gets_the_head_that_timm_would_give_it():
    model = tune(make_vit(), "lora", num_classes=7, seed=3)
    assert model.cfg.MODEL.HEAD_INIT == "linear"
    bound = model.head.last_layer.in_features**-0.5
    assert 0.8 * bound < model.head.last_layer.weight.abs().max() <= bound


# --- learning rates, as a whole run sets them


class Numbers:
    """A loader of nothing but the right number of batches."""

    def __init__(self, count: int, batch_size: int):
        self.labels, self.device, self.batch_size = (
            torch.zeros(count, dtype=torch.int64),
            torch.device("cpu"),
            batch_size,
        )

    @property
    def batch_sizes(self) -> list[int]:
        return [min(self.batch_size, len(self.labels) - i) for i in range(0, len(self.labels), self.batch_size)]

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def epoch(self, number: int, first: int = 0, part=None):
        return ((i, i) for i in range(first, len(self)))


def rates_of_a_run(cfg, steps_per_epoch: int, folder: Path) -> list[list[float]]:
    """The learning rate of every parameter group in every step, as the trainer sets it."""
    model = make_model("end2end")
    training = Training(cfg, model, {"train": Numbers(4 * steps_per_epoch, 4)}, RunFolder(folder), Shared())
    seen = []

    class Step:
        network, scaler = model, None

        def __call__(self, *batch):
            seen.append([group["lr"] for group in training.optimizer.param_groups])
            return torch.zeros(())

    training.step, training.network = Step(), model
    training.run(StopSignals())
    assert training.finish()["steps"] == len(seen)
    return seen


def solver_cfg(**keys):
    pairs = [text for key, value in keys.items() for text in (f"SOLVER.{key}", str(value))]
    return load_cfg("", [*DIGITS, "MODEL.TRANSFER_TYPE", "end2end", "MODEL.SAVE_CKPT", "False", *pairs])


def drawn(seed: int) -> tuple[random.Random, dict, int]:
    """Settings of a run, and its steps per epoch."""
    draw = random.Random(seed)
    base = 10 ** draw.uniform(-5, 1)
    keys = {
        "OPTIMIZER": draw.choice(["sgd", "adam", "adamw"]),
        "BASE_LR": base,
        "MIN_LR": draw.choice([0.0, base * draw.random()]),
        "WARMUP_LR": draw.choice([0.0, base * draw.random()]),
        "TOTAL_EPOCH": draw.randint(2, 12),
        "BIAS_MULTIPLIER": draw.choice([1.0, 2.0, 0.5]),
    }
    return draw, keys, draw.randint(1, 6)


def timm_scheduler(keys: dict, **more):
    """(timm's optimizer, scheduler, number of epochs) of the same settings; a second group learns faster."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    groups[1]["lr_scale"] = keys["BIAS_MULTIPLIER"]
    optimizer = torch.optim.SGD(groups, keys["BASE_LR"])
    return optimizer, *create_scheduler_v2(
        optimizer, "cosine", min_lr=keys["MIN_LR"], warmup_lr=keys["WARMUP_LR"], **more
    )


def assert_rates(ours: list[list[float]], theirs: list[float], base: float, faster: float) -> None:
    assert len(ours) == len(theirs)
    for step, (groups, (plain, scaled)) in enumerate(zip(ours, theirs, strict=True)):
        assert {round(lr / base, 12) for lr in groups} <= {round(lr / base, 12) for lr in (plain, scaled)}, step
        assert min(abs(lr - plain) for lr in groups) <= 1e-12 * base, step
        assert min(abs(lr - scaled) for lr in groups) <= 1e-12 * base * max(1, faster), step


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("late", [False, True])
def test_a_runs_rates_per_epoch_are_timms(seed, late, tmp_path):
    """``late``: the scheduler is stepped after epoch e with e, as FacT and others do; otherwise with e + 1, as timm."""
    draw, keys, steps = drawn(seed)
    warmup, cooldown = draw.randint(0, keys["TOTAL_EPOCH"] + 1), draw.randint(0, 3)
    optimizer, scheduler, epochs = timm_scheduler(
        keys, num_epochs=keys["TOTAL_EPOCH"], warmup_epochs=warmup, cooldown_epochs=cooldown
    )
    theirs = []
    for epoch in range(epochs):
        theirs += [[group["lr"] for group in optimizer.param_groups]] * steps
        scheduler.step(epoch if late else epoch + 1)
    cfg = solver_cfg(**keys, SCHEDULER="timm", SCHEDULE_LATE=late, WARMUP_EPOCH=warmup, COOLDOWN_EPOCH=cooldown)
    assert_rates(rates_of_a_run(cfg, steps, tmp_path), theirs, keys["BASE_LR"], keys["BIAS_MULTIPLIER"])


@pytest.mark.parametrize("seed", range(24))
def test_a_runs_rates_per_step_are_timms(seed, tmp_path):
    draw, keys, steps = drawn(seed)
    warmup, cooldown = draw.randint(0, keys["TOTAL_EPOCH"] + 1), draw.randint(0, 3)
    optimizer, scheduler, _ = timm_scheduler(
        keys, num_epochs=keys["TOTAL_EPOCH"], warmup_epochs=warmup, cooldown_epochs=cooldown,
        step_on_epochs=False, updates_per_epoch=steps,
    )  # fmt: skip
    theirs = []
    for update in range((keys["TOTAL_EPOCH"] + cooldown) * steps):
        theirs.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step_update(update + 1)
    cfg = solver_cfg(**keys, SCHEDULER="timm", SCHEDULE_PER="step", WARMUP_EPOCH=warmup, COOLDOWN_EPOCH=cooldown)
    assert_rates(rates_of_a_run(cfg, steps, tmp_path), theirs, keys["BASE_LR"], keys["BIAS_MULTIPLIER"])


@pytest.mark.parametrize("seed", range(12))
def test_cosine_is_timms_with_a_warm_up_prefix_that_counts(seed, tmp_path):
    draw, keys, steps = drawn(seed)
    warmup = draw.randint(0, keys["TOTAL_EPOCH"] - 1)
    optimizer, scheduler, epochs = timm_scheduler(
        keys, num_epochs=keys["TOTAL_EPOCH"] - warmup, warmup_epochs=warmup, warmup_prefix=True
    )
    theirs = []
    for epoch in range(epochs):
        theirs += [[group["lr"] for group in optimizer.param_groups]] * steps
        scheduler.step(epoch + 1)
    cfg = solver_cfg(**keys, WARMUP_EPOCH=warmup)
    assert_rates(rates_of_a_run(cfg, steps, tmp_path), theirs, keys["BASE_LR"], keys["BIAS_MULTIPLIER"])


def warmup_cosine(at: int, warmup: int, total: int) -> float:
    """The multiple of the learning rate that VPT (in epochs) and Hugging Face (in steps) give to LambdaLR."""
    if at < warmup:
        return at / max(1, warmup)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * (at - warmup) / max(1, total - warmup))))


@pytest.mark.parametrize("seed", range(12))
def test_a_runs_rates_are_vpts(seed, tmp_path):
    draw, keys, steps = drawn(seed)
    keys |= {"MIN_LR": 0.0, "WARMUP_LR": 0.0, "BIAS_MULTIPLIER": 1.0, "WARMUP_EPOCH": draw.randint(0, 12)}
    theirs = [
        keys["BASE_LR"] * warmup_cosine(e, keys["WARMUP_EPOCH"], keys["TOTAL_EPOCH"])
        for e in range(keys["TOTAL_EPOCH"])
    ]
    ours = rates_of_a_run(solver_cfg(**keys), steps, tmp_path)
    assert_rates(ours, [(lr, lr) for lr in theirs for _ in range(steps)], keys["BASE_LR"], 1.0)


@pytest.mark.parametrize("seed", range(12))
def test_a_run_of_so_many_steps_has_hugging_faces_rates_and_ends_there(seed, tmp_path):
    draw, keys, steps = drawn(seed)
    total = draw.randint(1, 40)
    warmup = draw.randint(1, total)
    keys |= {"MIN_LR": 0.0, "WARMUP_LR": 0.0, "BIAS_MULTIPLIER": 1.0, "MAX_STEPS": total, "WARMUP_STEPS": warmup}
    theirs = [keys["BASE_LR"] * warmup_cosine(step, warmup, total) for step in range(total)]
    cfg = solver_cfg(**keys)
    assert cfg.SOLVER.SCHEDULE_PER == "step"  # as config.yaml will say
    assert_rates(rates_of_a_run(cfg, steps, tmp_path), [(lr, lr) for lr in theirs], keys["BASE_LR"], 1.0)


def test_warm_up_in_steps_goes_with_epochs_too(tmp_path):
    cfg = solver_cfg(BASE_LR=1.0, WARMUP_STEPS=4, TOTAL_EPOCH=3)
    rates = [groups[0] for groups in rates_of_a_run(cfg, 5, tmp_path)]
    assert rates == pytest.approx([warmup_cosine(step, 4, 15) for step in range(15)])


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"MIN_LR": 1.0}, "MIN_LR 1 is more than SOLVER.BASE_LR"),
        ({"WARMUP_LR": 0.5}, "WARMUP_LR 0.5 is more than SOLVER.BASE_LR"),
        ({"MIN_LR": -1e-5}, "MIN_LR is -1e-05"),
        ({"SCHEDULE_LATE": True, "SCHEDULE_PER": "step"}, "SCHEDULE_LATE is for a learning rate per epoch"),
        ({"SCHEDULE_LATE": True, "MAX_STEPS": 9}, "SCHEDULE_LATE is for a learning rate per epoch"),
        ({"MAX_STEPS": 9, "COOLDOWN_EPOCH": 1}, "MAX_STEPS and SOLVER.COOLDOWN_EPOCH"),
        ({"SCHEDULER": "constant", "COOLDOWN_EPOCH": 1}, "SCHEDULER constant never gets there"),
        ({"DECAY": "some"}, "DECAY is 'some'"),
        ({"EPS": -1.0}, "EPS is -1"),
        ({"LAYER_DECAY": 0.0}, "LAYER_DECAY is 0.0"),
    ],
)
def test_settings_of_the_solver_that_cannot_be_are_named(keys, what):
    with pytest.raises(ConfigError, match=what):
        solver_cfg(**keys)


def test_stopping_early_needs_measurements_however_epochs_are_counted(tmp_path):
    cfg = solver_cfg(MAX_STEPS=40, PATIENCE=2, EVAL_EVERY=5)
    loaders = {"train": Numbers(16, 4), "val": Numbers(4, 4)}
    with pytest.raises(ValueError, match=r"EVAL_EVERY is 5.*PATIENCE"):
        Training(cfg, make_model("end2end"), loaders, RunFolder(tmp_path), Shared())


# --- who decays


def decaying(model, **solver) -> set[str]:
    cfg = make_cfg(
        **{f"SOLVER__{key}": value for key, value in {"OPTIMIZER": "adamw", "WEIGHT_DECAY": 0.1, **solver}.items()}
    )
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER, model=model)
    decays = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    return {name for name, param in model.named_parameters() if id(param) in decays}


def trained(model) -> set[str]:
    return {name for name, param in model.named_parameters() if param.requires_grad}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    "methods",
    [
        "linear",
        "lora",
        "ssf",
        "rlrr",
        "prompt",
        "adapter+tinytl-bias",
        "convpass",
        "fact_tk",
        "spt_lora",
        "cls",
        "end2end",
    ],
)
def test_decay_timm_is_timms_rule(methods, optimizer):
    model = make_model(methods, "freqfit" if methods == "lora" else "")
    skip = [f"vit.{name}" for name in model.vit.no_weight_decay()]
    groups = param_groups_weight_decay(model, 0.1, no_weight_decay_list=skip)
    theirs = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decaying(model, DECAY="timm", OPTIMIZER=optimizer) == {
        n for n, p in model.named_parameters() if id(p) in theirs
    }
    assert decaying(model, DECAY="all", OPTIMIZER=optimizer) == trained(model)
    assert decaying(model, DECAY="none", OPTIMIZER=optimizer) == set()


def test_ssf_decays_as_its_optim_factory_has_it():
    """There all of SSF has one dimension, the patch projection's pair too; the head's weight is all that decays."""
    assert decaying(make_model("ssf")) == {"head.last_layer.weight"}


def test_rlrr_decays_as_its_get_parameters_has_it():
    """There what decays has no "bias" or "norm" in its name: t and the norms' pairs have, the patches' pair has not."""
    model = make_model("rlrr")
    sites = {f"methods.rlrr.taps.{index}.": site for site, _, index in model.methods["rlrr"].wires}

    def theirs(name: str) -> str:
        """The parameter's name in the original, nearly: ssf_scale_attn_norm, ssf_scale_patch, scale_col, head.bias."""
        site = next((site for prefix, site in sites.items() if name.startswith(prefix)), "")
        last = name.rsplit(".", 1)[-1]
        return f"{'ssf' if last in ('scale', 'shift') else 'linear'}_{last}_{site}" if site else name

    expected = {name for name in trained(model) if "bias" not in theirs(name) and "norm" not in theirs(name)}
    assert decaying(model) == expected
    assert len(expected) == 1 + 3 * 4 * 2 + 2  # the head, two scales of four maps in three blocks, the patches' pair


@pytest.mark.parametrize("method", ["spt_lora", "spt_adapter"])
def test_spt_decays_as_its_build_optimizer_has_it(method):
    """There neither what has one dimension, nor the class token: of SPT's, what is left are the modules' matrices."""
    model = make_model(method)
    assert "vit.cls_token" in trained(model)
    expected = {
        name for name in trained(model) if name.endswith(("down.weight", "up.weight", "head.last_layer.weight"))
    }
    assert len(expected) > 1
    assert decaying(model) == expected


def test_only_a_methods_own_parameters_decay_by_its_rule():
    mixed, lora = make_model("lora+ssf+layernorm"), make_model("lora+layernorm")
    assert {name for name in decaying(mixed) if not name.startswith("methods.ssf")} == decaying(lora)
    assert "vit.norm.weight" in decaying(mixed)  # VPT's rule: with adamw, everything but biases
    assert not any(name.startswith("methods.ssf") for name in decaying(mixed))


def decay_key(*pairs: str, **more) -> str:
    return load_cfg("", [*DIGITS, *pairs], **more).SOLVER.DECAY


def test_decay_auto_is_resolved_where_no_method_has_a_rule():
    ssf = ["MODEL.TRANSFER_TYPE", "ssf"]
    assert decay_key(*ADAMW, "MODEL.TRANSFER_TYPE", "lora") == "vpt"
    assert decay_key(*ssf) == "vpt"  # sgd: as FreqFiT trains it
    assert decay_key(*ssf, *ADAMW) == "auto"
    assert decay_key(*ssf, *ADAMW, for_vpt=True) == "vpt"
    assert decay_key(*ssf, *ADAMW, "NUM_GPUS", "1") == "vpt"


def test_a_saved_config_without_the_key_decays_as_it_did(tmp_path):
    cfg = load_cfg("", [*DIGITS, *ADAMW, "MODEL.TRANSFER_TYPE", "ssf"])
    saved = yaml.safe_load(cfg.dump())
    del saved["SOLVER"]["DECAY"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert load_cfg(tmp_path / "config.yaml").SOLVER.DECAY == "vpt"
    assert load_cfg_text(yaml.safe_dump(saved)).SOLVER.DECAY == "vpt"
    assert load_cfg_text(cfg.dump()) == cfg


def test_epsilon_is_the_configs():
    def eps(**keys) -> float:
        cfg = make_cfg(**{f"SOLVER__{key}": value for key, value in keys.items()})
        return build_optimizer(make_model("linear").named_parameters(), cfg.SOLVER).defaults["eps"]

    assert (eps(OPTIMIZER="adam"), eps(OPTIMIZER="adamw")) == (1e-8, 1e-6)
    assert (eps(OPTIMIZER="adam", EPS=1e-5), eps(OPTIMIZER="adamw", EPS=1e-8)) == (1e-5, 1e-8)


# --- batches


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 3), (10, 10), (7, 4), (5, 1)])
def test_drop_last_is_torchs(count, size):
    ours = split_batches(torch.arange(count), size, drop_last=True)
    theirs = list(DataLoader(range(count), batch_size=size, drop_last=True))
    assert [batch.tolist() for batch in ours] == [batch.tolist() for batch in theirs]


# --- layer-wise learning rates


@pytest.mark.parametrize(
    "vit",
    [
        lambda classes: make_vit(num_classes=classes),
        lambda classes: make_vit(num_classes=classes, global_pool="avg"),
        lambda classes: timm.create_model(
            "swin_tiny_patch4_window7_224",
            num_classes=classes,
            depths=(1, 2, 1, 1),
            embed_dim=12,
            num_heads=(1, 1, 2, 2),
        ),
        lambda classes: timm.create_model("convnext_atto", num_classes=classes, depths=(1, 2, 1, 1), dims=(4, 8, 8, 8)),
    ],
    ids=["vit", "vit-avg", "swin", "convnext"],
)
def test_layer_decay_is_timms(vit):
    theirs, ours = vit(5), make_model("end2end", vit=vit(0))
    spared = getattr(theirs, "no_weight_decay", set)()
    expected = {}
    for group in param_groups_layer_decay(theirs, 0.1, no_weight_decay_list=spared, layer_decay=0.7):
        for param in group["params"]:
            expected[id(param)] = (group["lr_scale"], group["weight_decay"])
    expected = {name: expected[id(param)] for name, param in theirs.named_parameters()}

    cfg = make_cfg(SOLVER__OPTIMIZER="adamw", SOLVER__WEIGHT_DECAY=0.1, SOLVER__DECAY="timm", SOLVER__LAYER_DECAY=0.7)
    found = {}
    for rules, params in parameter_groups(ours.named_parameters(), cfg.SOLVER, ours).items():
        found |= {name: rules for name in params}
    heads = {name: name.rsplit(".", 1)[-1] for name in found if name.startswith("head.last_layer")}
    classifier = theirs.pretrained_cfg.get("classifier", "head") if hasattr(theirs, "pretrained_cfg") else "head"
    mapped = {
        f"{classifier}.{heads[name]}" if name in heads else name.removeprefix("vit."): r for name, r in found.items()
    }
    assert mapped == expected
    assert len({scale for scale, _ in expected.values()}) > 3


def test_layer_decay_is_for_full_fine_tuning():
    with pytest.raises(ConfigError, match="LAYER_DECAY is for MODEL"):
        load_cfg("", [*DIGITS, "MODEL.TRANSFER_TYPE", "lora", "SOLVER.LAYER_DECAY", "0.7"])


# --- whole runs


def test_a_run_says_who_decays_and_how_long_it_was(tmp_path):
    cfg = load_cfg("", [
        *QUICK, *ADAMW, "MODEL.TRANSFER_TYPE", "ssf", "SOLVER.WEIGHT_DECAY", "0.05", "SOLVER.MAX_STEPS", "7",
        "DATA.BATCH_SIZE", "8", "DATA.DROP_LAST", "True", "DEVICE", "cpu",
    ])  # fmt: skip
    result = run(cfg, RunFolder(tmp_path / "run"))
    assert result["steps"] == 7
    by_decay = {group["weight_decay"]: group for group in result["optimizer"]}
    assert list(by_decay[0.05]["names"]) == ["head.last_layer.weight"]
    assert sum(group["parameters"] for group in result["optimizer"]) == result["parameters"]["trained"]
    wiring = (tmp_path / "run" / "wiring.txt").read_text()
    assert "weight decay 0.05: 1 tensors" in wiring
    assert "methods.ssf.taps.*.scale" in wiring


def test_a_run_of_so_many_steps_resumes_within_its_last_epoch(tmp_path, monkeypatch):
    cfg = load_cfg("", [*SETTINGS, "SOLVER.MAX_STEPS", "17", "SOLVER.WARMUP_STEPS", "3", "DATA.DROP_LAST", "True"])
    run(cfg, RunFolder(tmp_path / "whole"))
    interrupted_at(monkeypatch, [4, 14])
    for resume in (False, True):
        with pytest.raises(Interrupted):
            run(cfg, RunFolder(tmp_path / "parts"), resume=resume)
    run(cfg, RunFolder(tmp_path / "parts"), resume=True)
    same_result(tmp_path / "whole", tmp_path / "parts")


def test_images_that_fill_no_batch_are_refused(tmp_path):
    cfg = load_cfg("", [*QUICK, "DATA.BATCH_SIZE", "5000", "DATA.DROP_LAST", "True"])
    with pytest.raises(ValueError, match="do not fill one batch of 5000"):
        run(cfg, RunFolder(tmp_path / "run"))
