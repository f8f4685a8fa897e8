"""The ready-made sweeps: each loads and can run, has the runs that its head says, and repeats figures that exist."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from paths import ROOT
from sweep_files import number_of_runs, shortened
from timm.models.vision_transformer import VisionTransformer

from src.configs.config import ConfigError, load_settings
from src.engine.sensitivity import spt_method
from src.models.vit_models import TunedViT, parse
from src.tools.report import published
from src.tools.tune import estimate
from src.tools.tune.ledger import Ledger
from src.tools.tune.plan import Plan
from src.tools.tune.points import points
from src.tools.tune.spec import Range, load_sweep
from src.tools.tune.work import preview

FILES = sorted([*(ROOT / "configs/sweeps").glob("*.yaml"), *(ROOT / "configs/repro").glob("*.yaml")])
IDS = [f"{path.parent.name}/{path.stem}" for path in FILES]


def head(path: Path) -> str:
    return "".join(itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines(keepends=True)))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_combination_of_settings_can_run_and_is_previewed_without_data(path, tmp_path, monkeypatch):
    """No weights either: a second for each image stands for what a step would take."""
    monkeypatch.setattr(estimate, "measured_speed", lambda cfg, task, shared: estimate.Speed(0.0, 1.0, 1.0, False))
    monkeypatch.chdir(tmp_path)
    plan = Plan(shortened(load_sweep(path)))
    assert plan.runs
    lines = preview(Ledger(plan, ""), places=1).splitlines()
    runs, tested = len(plan.runs), len(plan.cells)
    total = f"{runs} runs: {runs - tested} to choose, {tested} to be tested; {runs} are left"
    assert lines.index(total) == len(plan.cells) + len(plan.runs)
    *unknown, time = lines[lines.index(total) + 1 :]
    if path.stem == "photos":  # a user's own
        assert unknown == [
            "time unknown of folder: the number of images is unknown without the data, which were not found"
        ]
        assert time == "estimated time: unknown"
        return
    assert not unknown
    assert re.fullmatch(r"estimated time: [\d:]+", time)
    assert all(run.seconds > 100 for run in plan.runs)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_value_of_every_axis_can_run(path):
    sweep = load_sweep(path)
    first = [choice.settings for axis in sweep.over.values() for choice in axis[:1]]

    def check(*layers: dict) -> None:
        settings = [(key, value, "the sweep") for layer in (*first, *layers) for key, value in layer.items()]
        load_settings([*sweep.settings, *settings], [], quiet=True)

    for choice in [choice for axis in sweep.over.values() for choice in axis]:
        check(choice.settings)
        for tuned in [one for axis in choice.tune.values() for one in axis]:
            check(choice.settings, tuned.settings)
    for tuned in [one for axis in sweep.tune.values() if not isinstance(axis, Range) for one in axis]:
        check(tuned.settings, sweep.tuning)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_the_head_says_what_it_is_how_to_run_it_and_how_many_runs(path):
    said = head(path)
    place = path.relative_to(ROOT)
    assert f"vitune tune {place}" in said
    assert re.search(r"^# ([\d,]+) runs", said, re.MULTILINE)[1] == f"{number_of_runs(load_sweep(path)):,}"
    assert "not run yet" in said or "measured" in said


@pytest.mark.parametrize(
    ("name", "freqfit", "depth"), [("freqfit_pairs", "freqfit", 2), ("study", "", 2), ("block_expansion", "", 12)]
)
def test_every_method_can_be_built(name, freqfit, depth):
    """At its first settings, on a ViT that takes no memory."""
    sweep = load_sweep(ROOT / f"configs/sweeps/{name}.yaml")
    for choice in sweep.over["method"]:
        settings = [(key, value, "the sweep") for key, value in (choice.settings | _first(choice.tune)).items()]
        cfg = load_settings([*sweep.settings, *settings], [], quiet=True)
        methods = parse(cfg.MODEL.TRANSFER_TYPE, freqfit)
        methods.pop(spt_method(cfg), None)  # it is built from the task's images
        with torch.device("meta"):
            vit = VisionTransformer(embed_dim=96, depth=depth, num_heads=3, num_classes=0)
            assert TunedViT(vit, methods, cfg.MODEL, 10).num_trained()["head"] > 0


def _first(axes: dict) -> dict:
    return {key: value for axis in axes.values() for key, value in axis[0].settings.items()}


def test_a_wrong_value_in_a_file_is_found(tmp_path):
    path = tmp_path / "broken.yaml"
    section = "{OVER: {DATA.NAME: [natural]}, TUNE: {SOLVER.BASE_LR: [1, -1]}}"
    path.write_text(f"_BASE_: {ROOT / 'configs/vtab.yaml'}\nSWEEP: {section}\n")
    with pytest.raises(ConfigError, match=r"SOLVER.BASE_LR -1 is for"):
        Plan(shortened(load_sweep(path)))


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "repro"], ids=lambda path: path.stem)
def test_what_is_repeated_was_published_and_has_our_tasks_and_rows(path):
    sweep = load_sweep(path)
    found = published.named(sweep.published)
    assert len({(one.method, one.backbone) for one in found}) == len(found), "which of several figures is meant?"
    if methods := sweep.published.get("METHOD"):
        assert sorted(one.method for one in found) == sorted([methods] if isinstance(methods, str) else methods)
    tasks = {
        choice.settings["DATA.NAME"]
        for axis in sweep.over.values()
        for choice in axis
        if "DATA.NAME" in choice.settings
    }
    if rows := sweep.over.get("method"):
        assert {choice.label for choice in rows} == {one.method for one in found}
    means = {"natural", "specialized", "structured"}, {"mean of 3 groups"}
    assert all(any(names <= one.values.keys() for names in (tasks, *means)) for one in found)


def test_learning_rates_of_vpt_are_scaled_as_its_code_scales_them():
    base = {
        "vpt_finetune": [0.001, 0.0001, 0.0005, 0.005],
        "vpt_linear": [50, 25, 10, 5, 2.5, 1, 0.5, 0.25, 0.1, 0.05],
        "vpt_linear_mae": [50, 25, 10, 5, 2.5, 1, 0.5, 0.25, 0.1, 0.05, 0.025, 0.005, 0.0025],
        "vpt_prompt": [5, 2.5, 1, 50, 25, 10, 0.5, 0.25, 0.1, 0.05],
        "vpt_prompt_largerlr": [500, 1000, 250, 100],
    }
    for name, rates in base.items():
        sweep = load_sweep(ROOT / f"configs/sweeps/{name}.yaml")
        (batch,) = [value for key, value, _ in sweep.settings if key == "DATA.BATCH_SIZE"]
        for _, settings in points(sweep.tune, sweep):
            unscaled = settings["SOLVER.BASE_LR"] * 256 / settings.get("DATA.BATCH_SIZE", batch)
            assert any(unscaled == pytest.approx(rate) for rate in rates), (name, settings)
        assert len(points(sweep.tune, sweep)) == len(rates) * 4 * (4 if "prompt" in name else 1)
        assert [seed.label for seed in sweep.seeds] == ["42", "44", "82", "100", "800"]


def test_the_studys_grids_are_as_large_as_its_own():
    """Rows of its tune summaries: the method's axes times two learning rates and two decays."""
    sweep = load_sweep(ROOT / "configs/sweeps/study.yaml")
    sizes = {choice.label: len(points(sweep.tune | choice.tune, sweep)) for choice in sweep.over["method"]}
    assert sizes == {
        **dict.fromkeys(("Linear", "Full", "BitFit", "LayerNorm", "DiffFit", "SSF"), 4),
        **{"VPT-Shallow": 20, "VPT-Deep": 16, "AdaptFormer": 36, "Pfeiffer adapter": 80, "Houlsby adapter": 64},
        **{"LoRA": 16, "Convpass": 80, "RepAdapter": 60, "FacT-TK": 60, "FacT-TT": 60},
    }


def test_pairs_with_freqfit_differ_in_nothing_else():
    sweep = load_sweep(ROOT / "configs/sweeps/freqfit_pairs.yaml")
    assert [choice.settings for choice in sweep.over["FREQFIT"]] == [{"FREQFIT": ""}, {"FREQFIT": "freqfit"}]
    assert all("FREQFIT" not in choice.settings for choice in sweep.over["method"])


def test_the_data_path_is_crossed_in_full():
    sweep = load_sweep(ROOT / "configs/sweeps/cifar_data_path.yaml")
    axes = {name: [choice.settings for choice in axis] for name, axis in sweep.over.items() if name != "method"}
    assert axes == {
        "encoding": [{"DATA.JPEG_QUALITY": 0}, {"DATA.JPEG_QUALITY": 75}],
        "DATA.NORMALIZE": [{"DATA.NORMALIZE": "inception"}, {"DATA.NORMALIZE": "none"}],
        "DATA.AUGMENT": [{"DATA.AUGMENT": "none"}, {"DATA.AUGMENT": "rrc_flip"}],
    }
