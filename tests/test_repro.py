"""Published settings are those of the papers' own files, and every command that is listed can be run."""

import csv
import json
import os
from functools import cache
from pathlib import Path

import pytest

from src.configs.config import ConfigError, flatten, load_settings
from src.data.tasks import find_task
from src.tools.sweeps.plan import Plan
from src.tools.sweeps.spec import load_sweep

ROOT = Path(__file__).parents[1]
REPRO = ROOT / "configs/repro"
PUBLISHED = Path(os.environ.get("PUBLISHED_DIR", ROOT.parent / "shared/published"))

# The unifying study's names of methods, settings and folders of results, and ours.
METHODS = {
    "linear": "Linear", "full": "Full", "bitfit": "BitFit", "difffit": "DiffFit", "ln": "LayerNorm", "ssf": "SSF",
    "vpt_shallow": "VPT-Shallow", "vpt_deep": "VPT-Deep", "lora_p_adapter": "Pfeiffer adapter",
    "rand_h_adapter": "Houlsby adapter", "adaptformer": "AdaptFormer", "repadapter": "RepAdapter",
    "convpass": "Convpass", "lora": "LoRA", "fact_tt": "FacT-TT", "fact_tk": "FacT-TK",
}  # fmt: skip
SECTIONS = {"Pfeiffer adapter": "ADAPTER", "Houlsby adapter": "HOULSBY", "VPT-Shallow": "PROMPT", "VPT-Deep": "PROMPT"}
SIZED = {"lora": "r", "fact_tk": "r", "rand_h_adapter": "b"}
FILES = {
    "default_vtab": ("study_fixed", 304),
    "cifar100_1k_aug_normalized": ("study_cifar100_1k_fixed", 16),
    "cifar100_tune_lrwd": ("study_cifar100_fixed", 62),
    "resisc_tune_lrwd": ("study_resisc45_fixed", 62),
    "clevr_tune_lr": ("study_clevr_fixed", 31),
    "clip_fs_imagenet": ("study_imagenet_fixed", 12),
}
TASKS = {"imagenet": "imagenet-100shot", "clevr": "clevr-distance-full"}


@cache
def planned(name: str) -> dict[tuple[str, str], dict]:
    """(method, task) -> the whole config of its run."""
    plan = Plan(load_sweep(REPRO / f"{name}.yaml"))
    settings = {(str(cell.over["method"]), cell.task): cell.finals[0].settings for cell in plan.cells}
    return {place: flatten(load_settings(its, [], quiet=True)) for place, its in settings.items()}


def task_of(folder: str) -> str:
    if folder.startswith(("cifar100-", "resisc-")):
        return folder.replace("resisc-", "resisc45-")
    return TASKS.get(folder) or find_task(f"processed_vtab-{folder}").name


def ours(method: str, best: dict) -> tuple[str, dict]:
    """The study's name of a method and what it chose, in our words."""
    base, _, size = method.rpartition("_")
    label = METHODS[method] if method in METHODS else f"{METHODS[base]} {SIZED[base]}={size}"
    family = METHODS.get(method) or METHODS[base]
    section = SECTIONS.get(family) or family.upper().replace("-", "_")
    names = {"lr": "SOLVER.BASE_LR", "wd": "SOLVER.WEIGHT_DECAY", "drop_path_rate": "SOLVER.DROP_PATH"}
    settings = {}
    for key, value in best.items():
        if key == "convpass_xavier_init":
            settings["MODEL.CONVPASS.CONV_INIT"] = "xavier" if value else "identity"
            continue
        last = key.rsplit("_", 1)[-1]
        own = {"bottleneck": "RANK" if family == "LoRA" else "WIDTH", "dim": "RANK", "scaler": "SCALE"}
        settings[names.get(key) or f"MODEL.{section}.{own.get(last, 'NUM_TOKENS')}"] = value
    return label, settings


@pytest.mark.parametrize("setting", FILES)
def test_the_studys_settings_are_those_that_it_chose(setting):
    name, count = FILES[setting]
    runs = planned(name)
    assert len(runs) == count
    table = PUBLISHED / "published_results.csv"
    if not table.is_file():
        pytest.skip(f"{table} is not at hand")
    with open(table, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["setting"] == setting and row["dataset"] != "cifar_aug_norm"]
    assert len(rows) == count
    for row in rows:
        label, settings = ours(row["method"], json.loads(row["best_tune"]))
        run = runs[label, task_of(row["dataset"])]
        settings = {key: value for key, value in settings.items() if key in run}
        assert {key: run[key] for key in settings} == settings, (label, row["dataset"])


SWEEP = """_BASE_: {base}
SWEEP:
  PROTOCOL: fixed
  OVER:
    method:
      one: {{MODEL.TRANSFER_TYPE: lora}}
      two: {{MODEL.TRANSFER_TYPE: ssf}}
    DATA.NAME: [dtd, processed_vtab-cifar]
  CELLS:
    one: {{dtd: {{SOLVER.BASE_LR: 0.1}}, cifar100: {{SOLVER.BASE_LR: 0.2, MODEL.LORA.RANK: 3}}}}
    two: {{dtd: {{SOLVER.BASE_LR: 0.3}}, cifar100: {{SOLVER.BASE_LR: 0.4}}}}
  SEEDS: [1]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cells.yaml"
    path.write_text(SWEEP.format(base=ROOT / "configs/vtab.yaml"))
    return path


def rates(plan: Plan) -> dict[str, float]:
    return {str(cell): load_settings(cell.finals[0].settings, [], quiet=True).SOLVER.BASE_LR for cell in plan.cells}


def test_every_cell_gets_its_own_settings(file):
    plan = Plan(load_sweep(file))
    assert rates(plan) == {"dtd, one": 0.1, "cifar100, one": 0.2, "dtd, two": 0.3, "cifar100, two": 0.4}
    assert load_settings(plan.cells[1].finals[0].settings, [], quiet=True).MODEL.LORA.RANK == 3
    assert load_settings(plan.cells[0].finals[0].settings, [], quiet=True).MODEL.LORA.RANK != 3
    some = ["SWEEP.OVER.method", "[two]", "SWEEP.OVER.DATA.NAME", "[vtab-cifar]"]
    assert rates(Plan(load_sweep(file, some))) == {"cifar100, two": 0.4}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    two: {dtd", "    tow: {dtd", "SWEEP.CELLS has no settings for two, dtd"),
        ("cifar100: {SOLVER.BASE_LR: 0.4}", "pets: {SOLVER.BASE_LR: 0.4}", "no settings for two, cifar100"),
        ("{dtd: {SOLVER.BASE_LR: 0.3}", "{dtd: 0.3", "SWEEP.CELLS two dtd is 0.3; it must be settings"),
        ("SOLVER.BASE_LR: 0.4", "SOLVER.BASE_L: 0.4", "unknown key SOLVER.BASE_L"),
    ],
)
def test_cells_that_cannot_be_right_are_refused(file, old, new, message):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        Plan(load_sweep(file))


def test_a_cells_own_setting_is_not_changed_for_all_of_them(file):
    with pytest.raises(ConfigError, match=r"SOLVER.BASE_LR is set by SWEEP.CELLS"):
        load_sweep(file, ["SOLVER.BASE_LR", "0.5"])
