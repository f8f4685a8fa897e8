"""The solver's keys against what they are named after: timm, VPT and the methods' original code."""

import math
import random
from pathlib import Path

import pytest
import timm
import torch
import yaml
from conftest import make_allocation, make_cfg, make_model, make_vit, randomise
from runs import QUICK, SETTINGS, interrupted_at, learned, same_result
from safetensors.torch import load_file
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV2, ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from src.api import load, save, tune
from src.configs.config import ConfigError, changed, load_cfg, load_cfg_text
from src.data.loader import split_batches
from src.engine import trainer
from src.engine.checkpoint import load_tuned
from src.engine.results import RunFolder, run_folder
from src.engine.run import evaluate_run, run
from src.engine.trainer import Training
from src.engine.what_to_keep import plan_of
from src.models.head import Head
from src.models.pooling import set_pool
from src.models.prefix import frozen_prefix
from src.models.recompute import recompute
from src.models.vit_backbones.zoo import norm_of_all
from src.models.vit_models import METHODS, TunedViT, parse
from src.solver.ema import Average
from src.solver.optimizer import build_optimizer, parameter_groups
from src.tools.export.plain import merge
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
    training = Training(cfg, model, {"train": Numbers(4 * steps_per_epoch, 4)}, RunFolder(folder))
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
        ({"SCHEDULE_LATE": True, "SCHEDULE_PER": "step"}, "SCHEDULE_LATE needs a learning rate per epoch"),
        ({"SCHEDULE_LATE": True, "MAX_STEPS": 9}, "SCHEDULE_LATE needs a learning rate per epoch"),
        ({"MAX_STEPS": 9, "COOLDOWN_EPOCH": 1}, "MAX_STEPS and SOLVER.COOLDOWN_EPOCH"),
        ({"SCHEDULER": "constant", "COOLDOWN_EPOCH": 1}, "SCHEDULER constant never reaches them"),
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
        Training(cfg, make_model("end2end"), loaders, RunFolder(tmp_path))


@pytest.mark.parametrize(("decay", "steps", "said"), [(0.9998, 1600, "73 %"), (0.99, 120, "30 %"), (0.9, 100, "")])
def test_an_average_that_is_mostly_the_start_is_noted(decay, steps, said, tmp_path, caplog):
    cfg = solver_cfg(MAX_STEPS=steps, EMA=decay, PATIENCE=10**6)
    Training(cfg, make_model("linear"), {"train": Numbers(16, 4)}, RunFolder(tmp_path))
    assert [f"still make up {said}" in record.getMessage() for record in caplog.records] == [True] * bool(said)


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


def test_images_that_fill_no_batch_are_refused(tmp_path):
    cfg = load_cfg("", [*QUICK, "DATA.BATCH_SIZE", "5000", "DATA.DROP_LAST", "True"])
    with pytest.raises(ValueError, match="do not fill one batch of 5000"):
        run(cfg, RunFolder(tmp_path / "run"))


# --- drop-path


def swin(**more):
    sizes = dict(depths=(1, 2, 1, 1), embed_dim=12, num_heads=(1, 1, 2, 2), img_size=64, window_size=2)
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **sizes, **more)


def convnext(**more):
    return timm.create_model(
        "convnext_atto", num_classes=0, depths=(1, 2, 1, 1), dims=(4, 8, 8, 8), ls_init_value=1.0, **more
    )


def tuned(vit, methods: str = "linear", drop_path: float = 0.0, **keys) -> TunedViT:
    torch.manual_seed(2)
    return TunedViT(vit, parse(methods), make_cfg(**keys).MODEL, num_classes=5, drop_path=drop_path)


@pytest.mark.parametrize("build", [make_vit, swin, convnext])
def test_drop_path_alone_acts_in_a_frozen_network_and_is_timms(build):
    """The same random numbers leave out the same branches as in timm's own network, built with that rate."""
    torch.manual_seed(0)
    ours = build()
    theirs = build(drop_path_rate=0.4)
    theirs.load_state_dict(ours.state_dict())
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5  # the network's own: it stays off
    model = tuned(ours, drop_path=0.4).train()
    images = torch.randn(6, 3, 64 if build is swin else 32, 64 if build is swin else 32)
    with torch.no_grad():
        torch.manual_seed(3)
        expected = theirs.train().forward_head(theirs.forward_features(images), pre_logits=True)
        torch.manual_seed(3)
        torch.testing.assert_close(model.pooled(images), expected, atol=1e-6, rtol=1e-6)
        still = theirs.eval().forward_head(theirs.forward_features(images), pre_logits=True)
        assert not torch.allclose(still, expected)
        torch.testing.assert_close(model.eval().pooled(images), still, atol=1e-6, rtol=1e-6)


def test_drop_path_is_what_spts_key_says_unless_the_solvers_does():
    def rates(method: str, drop_path: float, **keys) -> list[float]:
        vit = make_vit()
        if method == "spt_lora":
            rules = METHODS[method].rules(make_cfg().MODEL.SPT_LORA, vit)
            keys["MODEL__SPT_LORA__ALLOCATION"] = make_allocation(vit, rules)
        return [module.drop_prob for module in tuned(vit, method, drop_path, **keys).drop_paths]

    assert rates("linear", 0.0) == []
    assert rates("linear", 0.2) == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])
    assert rates("spt_lora", 0.0, MODEL__SPT_LORA__VIT_DROP_PATH=0.3) == pytest.approx([0, 0, 0.15, 0.15, 0.3, 0.3])
    assert rates("spt_lora", 0.2, MODEL__SPT_LORA__VIT_DROP_PATH=0.3) == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])
    assert rates("spt_lora", 0.0, MODEL__SPT_LORA__VIT_DROP_PATH=0.0) == []


def test_what_drop_path_acts_in_is_not_computed_once():
    images = torch.randn(3, 3, 32, 32)
    assert frozen_prefix(tuned(make_vit()), images).name == "the pooled features"
    assert frozen_prefix(tuned(make_vit(), drop_path=0.3), images).name == "blocks.0"  # whose rate is 0


def test_drop_path_goes_with_recomputation_and_methods():
    """Branches left out in the forward pass are left out when it is computed again."""
    found = []
    for level in ("off", "blocks"):
        model = tuned(make_vit(), "prompt+freqfit+lora+adaptformer", drop_path=0.5)
        recompute(model.vit, model.sites, plan_of(model, level, (32, 32)))
        randomise(model)
        torch.manual_seed(4)
        model.train()(torch.randn(5, 3, 32, 32)).square().sum().backward()
        found.append({name: param.grad for name, param in model.named_parameters() if param.grad is not None})
    assert len(found[0]) > 10
    torch.testing.assert_close(*found, atol=0, rtol=0)


# --- the average of what is learned


@pytest.mark.parametrize("seed", range(3))
def test_the_average_is_timms(seed):
    """ModelEmaV2's, which SSF uses, and ModelEmaV3's to the bit: from the start, with one decay."""
    torch.manual_seed(seed)
    decay = random.Random(seed).uniform(0.5, 0.9999)
    model = tuned(make_vit(), "lora+layernorm", MODEL__MLP_NUM=1)  # with batch norm: statistics and a count
    average, second, third = Average(model, decay), ModelEmaV2(model, decay), ModelEmaV3(model, decay)
    for _ in range(5):
        for tensor in model.tuned_state_dict().values():
            tensor.add_(torch.randn(tensor.shape) if tensor.is_floating_point() else 1)
        for one in (second, third):
            one.update(model)
        average.update()
    expected = third.module.tuned_state_dict()
    assert average.values.keys() == expected.keys()
    assert all(name.startswith(("methods.", "head.")) or "norm" in name for name in expected)
    torch.testing.assert_close(average.values, dict(expected), rtol=0, atol=0)
    for name, value in second.module.tuned_state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(average.values[name], value, rtol=1e-5, atol=1e-6)
    present = {name: tensor.clone() for name, tensor in model.tuned_state_dict().items()}
    average.swap()
    torch.testing.assert_close(dict(model.tuned_state_dict()), dict(expected), rtol=0, atol=0)
    average.swap()
    torch.testing.assert_close(dict(model.tuned_state_dict()), present, rtol=0, atol=0)


EMA = [
    "MODEL.TRANSFER_TYPE", "lora", "SOLVER.EMA", "0.9", "DATA.BATCH_SIZE", "16", "SOLVER.MAX_STEPS", "5",
    "SOLVER.EVAL_EVERY", "0", "DEVICE", "cpu", "DATA.TRAIN_SPLIT", "train",
]  # fmt: skip


def test_a_run_tests_and_writes_the_average_and_trains_on_without_it(tmp_path, monkeypatch):
    """What a step leaves is that of a run without; what is written is the average of these, from the start on."""
    honest, left = trainer.TrainingStep.__call__, []

    def step(self, *batch):
        if not left:
            left.append({name: value.clone() for name, value in self.network.tuned_state_dict().items()})
        loss = honest(self, *batch)
        left.append({name: value.clone() for name, value in self.network.tuned_state_dict().items()})
        return loss

    monkeypatch.setattr(trainer.TrainingStep, "__call__", step)
    cfg = load_cfg("", [*QUICK, *EMA])
    result, steps = run(cfg, RunFolder(tmp_path / "with")), list(left)
    left.clear()
    run(load_cfg("", [*QUICK, *EMA, "SOLVER.EMA", "0.0", "DATA.NO_TEST", "True"]), RunFolder(tmp_path / "without"))
    torch.testing.assert_close(steps, left, rtol=0, atol=0)

    average = steps[0]
    for one in steps[1:]:
        average = {name: value.lerp(one[name], 1 - 0.9) for name, value in average.items()}
    written = load_file(tmp_path / "with" / "tuned.safetensors")
    torch.testing.assert_close(written, average, rtol=0, atol=0)
    again = evaluate_run(RunFolder(tmp_path / "with"), cfg)
    assert again == result["test"]


def test_a_run_with_an_average_and_drop_path_resumes_to_the_very_same_end(tmp_path, monkeypatch):
    cfg = load_cfg("", [
        *SETTINGS, "SOLVER.MAX_STEPS", "17", "SOLVER.WARMUP_STEPS", "3", "DATA.DROP_LAST", "True", "SOLVER.EMA", "0.8",
        "SOLVER.DROP_PATH", "0.3", "SOLVER.PATIENCE", "300",
    ])  # fmt: skip
    run(cfg, RunFolder(tmp_path / "whole"))
    interrupted_at(monkeypatch, [4, 14])
    for resume in (False, True):
        with pytest.raises(Interrupted):
            run(cfg, RunFolder(tmp_path / "parts"), resume=resume)
    run(cfg, RunFolder(tmp_path / "parts"), resume=True)
    same_result(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        (["SOLVER.EMA", "1.0"], r"SOLVER\.EMA is 1\.0; it must be at least 0 and less than 1"),
        (["SOLVER.DROP_PATH", "1"], r"SOLVER\.DROP_PATH is 1\.0"),
        (
            ["SOLVER.EMA", "0.9", "SOLVER.FSDP", "True", "MODEL.TRANSFER_TYPE", "end2end"],
            r"FSDP does not .* SOLVER\.EMA",
        ),
        (["MODEL.POOL", "max"], r"MODEL\.POOL is 'max'"),
    ],
)
def test_rates_and_pools_that_cannot_be_are_named(pairs, what):
    with pytest.raises(ConfigError, match=what):
        load_cfg("", [*DIGITS, *pairs])


# --- pooling


def leaves_the_last_block(model: TunedViT, images: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.vit.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.pooled(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("methods", ["linear", "lora", "prompt", "vqt"])
@pytest.mark.parametrize("registers", [0, 2])
@torch.no_grad()
def test_the_average_is_that_of_the_patches_behind_the_norm(methods, registers):
    images = torch.randn(3, 3, 32, 32)
    model = tuned(make_vit(reg_tokens=registers), methods, MODEL__POOL="avg", MODEL__PROMPT__NUM_TOKENS=4).eval()
    randomise(model)
    tokens = leaves_the_last_block(model, images)
    expected = model.vit.norm(tokens[:, -16:]).mean(dim=1)  # 4 x 4 patches, behind class token, registers and prompts
    torch.testing.assert_close(model.pooled(images), expected, atol=1e-6, rtol=1e-6)
    other = tuned(make_vit(reg_tokens=registers), methods, MODEL__PROMPT__NUM_TOKENS=4).eval()
    randomise(other)
    assert not torch.allclose(other.pooled(images), expected, atol=1e-3)


@torch.no_grad()
def test_the_class_token_of_mae_gets_the_norm_that_has_seen_it():
    vit, images = make_vit(global_pool="avg"), torch.randn(3, 3, 32, 32)
    tokens = vit.forward_features(images)
    set_pool(vit, "token", norm_of_all=True)
    torch.testing.assert_close(tuned(vit, MODEL__POOL="token").eval().pooled(images), vit.fc_norm(tokens[:, 0]))
    assert norm_of_all("mae_vitb16")
    assert not any(map(norm_of_all, ("mae_vitb16_freshnorm", "sup_vitb16_imagenet21k", "timm:vit_base_patch16_224")))


@pytest.mark.parametrize(
    ("vit", "pool", "what"),
    [
        (lambda: make_vit(class_token=False, global_pool="avg"), "token", "no class token"),
        (lambda: make_vit(global_pool="avg"), "token", "trained on an average"),
        (lambda: make_vit(global_pool="map"), "avg", "'map' pooling"),
        (swin, "token", "MODEL.POOL is for ViTs"),
        (convnext, "token", "MODEL.POOL is for ViTs"),
    ],
)
def test_a_pooling_for_which_there_is_no_norm_is_refused(vit, pool, what):
    with pytest.raises(ValueError, match=what):
        tuned(vit(), MODEL__POOL=pool)


@torch.no_grad()
def test_the_api_and_what_is_read_back_pool_alike(tmp_path):
    vit, images = make_vit(), torch.randn(3, 3, 32, 32)
    model = tune(vit, "lora", num_classes=3, pool="avg").eval()
    randomise(model)
    save(model, tmp_path / "tuned.safetensors")
    torch.testing.assert_close(load(tmp_path / "tuned.safetensors", vit)(images), model(images))
    assert vit.global_pool == "token"


def test_a_merged_model_is_timms_with_the_same_pooling(tmp_path):
    plain = merge(load_tuned(learned(tmp_path, "MODEL.TRANSFER_TYPE", "lora", "MODEL.POOL", "avg")))
    assert (plain.arguments["global_pool"], plain.arguments["fc_norm"]) == ("avg", False)
    with pytest.raises(ConfigError, match="zero_shot uses CLIP's class token"):
        load_cfg("", [*DIGITS, "DATA.FEATURE", "clip_vitb16", "MODEL.HEAD_INIT", "zero_shot", "MODEL.POOL", "avg"])
