"""Published settings are those of the papers' own files, and every command that is listed can be run."""

import copy
import csv
import hashlib
import json
import os
import shlex
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from paths import ROOT
from report_runs import make_run, sweep_entry
from sweep_files import number_of_runs, shortened
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch.utils.flop_counter import FlopCounterMode

from src.configs.config import ConfigError, file_settings, flatten, get_cfg, load_cfg, load_settings
from src.data.tasks import find_task
from src.models.vit_models import TunedViT, parse
from src.solver.lr_scheduler import Schedule
from src.tools.report import published
from src.tools.report.collect import collect
from src.tools.report.comparing import repro_table
from src.tools.report.protocol import SETTINGS
from src.tools.report.rows import group
from src.tools.repro import __main__ as repro
from src.tools.repro.work import rows
from src.tools.tune import spec
from src.tools.tune.arithmetic import shape, work
from src.tools.tune.estimate import published_sizes
from src.tools.tune.plan import Plan
from src.tools.tune.spec import load_sweep

REPRO = ROOT / "configs/repro"
PUBLISHED = Path(os.environ.get("PUBLISHED_DIR", "published"))

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
    "default_vtab": ("study_fixed", 304, "a9b568c12640"),
    "cifar100_1k_aug_normalized": ("study_cifar100_1k_fixed", 16, "d2235d090004"),
    "cifar100_tune_lrwd": ("study_cifar100_fixed", 62, "004c30746b4d"),
    "resisc_tune_lrwd": ("study_resisc45_fixed", 62, "07b851aa4a20"),
    "clevr_tune_lr": ("study_clevr_fixed", 31, "632599e944d6"),
    "clip_fs_imagenet": ("study_imagenet_fixed", 12, "f5292cb268b8"),
}
TASKS = {"imagenet": "imagenet-100shot", "clevr": "clevr-distance-full"}


@cache
def plan_of(name: str) -> Plan:
    return Plan(load_sweep(REPRO / f"{name}.yaml"))


def digest(name: str) -> str:
    """Of every cell's own settings."""
    said = sorted([str(cell.over["method"]), cell.task, sorted(cell.settings.items())] for cell in plan_of(name).cells)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


@cache
def planned(name: str) -> dict[tuple[str, str], dict]:
    """(method, task) -> the whole config of its run."""
    plan = plan_of(name)
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
    """As its own results have them, where these are at hand; elsewhere as they were when that was last seen."""
    name, count, seen = FILES[setting]
    runs = planned(name)
    assert (len(runs), digest(name)) == (count, seen)
    table = PUBLISHED / "published_results.csv"
    if not table.is_file():
        pytest.skip(f"{table} is not at hand")
    with open(table, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["setting"] == setting and row["dataset"] != "cifar_aug_norm"]
    assert len(rows) == count
    for row in rows:
        label, settings = ours(row["method"], json.loads(row["best_tune"]))
        run = runs[label, task_of(row["dataset"])]
        assert {key: run[key] for key in settings} == settings, (label, row["dataset"])


@pytest.mark.parametrize(
    ("name", "method", "task", "its"),
    [
        ("study_fixed", "LoRA", "cifar100", dict(lr=0.01, t_initial=100, warmup_t=10)),
        ("study_fixed", "SSF", "dtd", dict(lr=0.01, t_initial=100, warmup_t=10)),
        ("study_cifar100_1k_fixed", "BitFit", "cifar100-1k", dict(lr=0.001, t_initial=100, warmup_t=10)),
        ("study_cifar100_fixed", "Full", "cifar100-full", dict(lr=0.0005, t_initial=40, warmup_t=4)),
        ("study_resisc45_fixed", "LoRA r=1", "resisc45-225", dict(lr=0.001, t_initial=100, warmup_t=10)),
        ("study_resisc45_fixed", "Full", "resisc45-full", dict(lr=0.0005, t_initial=40, warmup_t=5)),
        ("study_clevr_fixed", "Full", "clevr-distance-full", dict(lr=0.0005, t_initial=40, warmup_t=4)),
        (
            "study_imagenet_fixed", "LoRA r=32", "imagenet-100shot",
            dict(lr=3e-5, t_initial=100, warmup_t=10, lr_min=1e-6, warmup_lr_init=1e-7),
        ),
    ],
)  # fmt: skip
def test_the_studys_runs_have_its_learning_rates_and_all_that_trains_decays(name, method, task, its):
    """Its trainer steps timm's scheduler after an epoch with that epoch's number; AdamW as torch has it, one group."""
    run = planned(name)[method, task]
    cfg = load_settings([(key, value, "the run") for key, value in run.items()], [], quiet=True)
    its = {"lr_min": 1e-5, "warmup_lr_init": 1e-6} | its
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], its.pop("lr"))
    scheduler, theirs = CosineLRScheduler(optimizer, **its), []
    for epoch in range(its["t_initial"]):
        theirs.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch)
    schedule = Schedule(cfg.SOLVER, 15)
    assert schedule.epochs == its["t_initial"]
    assert [schedule(epoch, 7) for epoch in range(schedule.epochs)] == pytest.approx(theirs, rel=1e-12)
    assert (run["SOLVER.DECAY"], run["SOLVER.EPS"]) == ("all", optimizer.defaults["eps"])
    assert run["DATA.DROP_LAST"]
    assert run["MODEL.HEAD_INIT"] == ("zero_shot" if "imagenet" in task else "linear")


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


# --- the list


@pytest.fixture(scope="module")
def listed():
    return rows(folder=REPRO)


def test_every_command_that_is_listed_can_be_run_and_has_its_rows_runs(listed, monkeypatch):
    honest = cache(lambda path, section: file_settings(path, [], section))  # each file is read once
    monkeypatch.setattr(spec, "file_settings", lambda path, _, section: copy.deepcopy(honest(path, section)))
    assert {row.file for row in listed} == set(REPRO.glob("*.yaml"))
    for row in listed:
        *start, file = shlex.split(row.command)[:3]
        assert start == ["vitune", "tune"]
        sweep = load_sweep(file, shlex.split(row.command)[3:])
        assert number_of_runs(sweep) == row.runs > 0
        assert {choice.label for choice in sweep.over.get("method", [])} <= {row.theirs.method}
        assert Plan(shortened(sweep)).runs


def test_runs_and_hours_are_those_of_a_count_by_hand():
    """ViT-B/16 is 17.6e9 multiply-adds; VTAB-1k trains 100 epochs on 1,000 images and tests once."""
    (row,) = [row for row in rows("lora", folder=REPRO) if row.file.stem == "study_fixed"]
    assert (row.runs, row.theirs.values["cifar100"]) == (19, 70.21)
    tested = sum(find_task(task).sizes["test"] for task in row.tasks)
    forward = 2 * 17.6e9
    assert row.hours(45) == pytest.approx((19 * 100 * 1000 * 2 * forward + tested * forward) / 45e12 / 3600, rel=0.05)
    assert row.hours(90) == pytest.approx(row.hours(45) / 2)
    (one,) = [row for row in rows("lora", "processed_vtab-cifar", REPRO) if row.file.stem == "study_fixed"]
    assert (one.runs, one.tasks, one.figure) == (1, ["cifar100"], "cifar100 70.2")
    assert one.command.endswith("SWEEP.OVER.method '[LoRA]' SWEEP.OVER.DATA.NAME '[cifar100]'")


def test_what_trains_on_kept_features_or_all_of_the_network_takes_its_own_time(listed):
    hours = {(row.file.stem, row.theirs.method): row.hours(45) for row in listed if row.file.stem.startswith("study_")}
    lora = hours["study_fixed", "LoRA"]
    assert hours["study_fixed", "Full"] == pytest.approx(1.5 * lora, rel=0.1)
    assert hours["study_fixed", "Linear"] == pytest.approx(lora / 2, rel=0.2)  # with drop-path, nothing is kept
    assert hours["study_clevr_fixed", "Linear"] < hours["study_clevr_fixed", "LoRA r=1"] / 5
    assert hours["study_fixed", "VPT-Deep"] > lora


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("linear", {}),
        ("end2end", {}),
        ("lora", {"LORA.RANK": 4}),
        ("prompt", {"PROMPT.NUM_TOKENS": 50, "PROMPT.DEEP": True}),
        ("partial-3", {}),
        ("block", {"BLOCK.NUM_BLOCKS": 3}),
    ],
)
def test_arithmetic_is_what_torch_counts(method, keys):
    pairs = {"DATA.NAME": "dtd", "DATA.FEATURE": "timm:vit_tiny_patch16_224", "MODEL.TRANSFER_TYPE": method}
    pairs |= {f"MODEL.{key}": value for key, value in keys.items()}
    cfg = load_settings([(key, value, "here") for key, value in pairs.items()], [], quiet=True)
    forward, step = work(cfg, shape(cfg.DATA.FEATURE, (224, 224)))
    with torch.device("meta"):
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
        model = TunedViT(vit, parse(method), cfg.MODEL, 10)
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.empty(1, 3, 224, 224))
            assert forward == pytest.approx(counter.get_total_flops(), rel=0.05)
            logits.sum().backward()
    assert step == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_list_is_narrowed_and_a_name_says_what_differs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert repro.main(["--list", "--paper", "rlrr", "--method", "RLRR*"]) == 0
    said = capsys.readouterr().out
    assert "configs/repro/rlrr_augreg.yaml: RLRR (arXiv 2403.19067)" in said
    assert "19 runs" in said
    assert "convpass" not in said
    assert repro.main(["study_clevr_fixed"]) == 0
    said = capsys.readouterr().out
    assert "It chose the learning rates on images it also" in said
    assert "pre-trained weights: sup_vitb16_imagenet21k" in said
    assert "configs/study.yaml:" in said  # its base, which says what differs for all of the study's files
    assert "configs/base-finetune.yaml:" not in said
    assert repro.main(["studdy"]) == 2
    assert "the nearest: study" in capsys.readouterr().err
    assert repro.main(["--list", "--method", "nothing"]) == 2
    assert "no file repeats such a row" in capsys.readouterr().err


def test_few_shot_sets_have_their_published_sizes_without_the_data():
    cfg = load_cfg(ROOT / "configs/fewshot.yaml", ["DATA.NAME", "fewshot-pets", "DATA.SHOTS", "4"])
    assert published_sizes(cfg, find_task("fewshot-pets")) == {"train": 37 * 4, "val": 736, "test": 3669}


def test_a_recipe_that_was_run_as_it_is_differs_in_no_setting(tmp_path):
    """Through the report: the runs' folders on one side, the source and its recipe on the other."""
    plain = flatten(get_cfg())
    sweep = load_sweep(REPRO / "study_fixed.yaml")
    for method, task, more in [("LoRA", "cifar100", {}), ("LoRA", "dtd", {}), ("SSF", "pets", {"SOLVER.EPS": 0.0})]:
        own = {
            key: value for key, value in (planned("study_fixed")[method, task] | more).items() if value != plain[key]
        }
        entry = sweep_entry("study_fixed", "final", method, {"method": method, "DATA.NAME": task}, {})
        entry["published"] = sweep.published | {"METHOD": method}
        make_run(tmp_path, 0.7, sweep=entry, **{key.replace(".", "__"): value for key, value in own.items()})
    table = repro_table(group(collect([tmp_path])), published.named, published.factors)
    said = {(line[0].text, line[2].text): line[-1].text for line in table.lines}
    settings = {
        place: [part for part in text.split("; ") if part.split(":")[0] in SETTINGS] for place, text in said.items()
    }
    assert settings == {
        ("LoRA", "cifar100"): [],
        ("LoRA", "dtd"): [],
        ("SSF", "pets"): ["optimizer: ours adamw, epsilon 1e-06, theirs adamw, epsilon 1e-08"],
    }
