"""The solver's keys against what they are named after: timm, VPT and the methods' original code."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import make_vit
from torch import nn

from src.api import tune
from src.configs.config import changed, load_cfg, load_cfg_text
from src.engine.results import run_folder
from src.models.head import Head

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
