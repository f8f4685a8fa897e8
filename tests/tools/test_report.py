"""The report from run folders: every figure recomputed, every folder accounted for."""

import csv
import itertools
import json
import math
import os
import re
import shlex
from statistics import fmean, stdev
from types import SimpleNamespace

import numpy as np
import pytest
from report_runs import FEW_SHOT, VTAB, make_run, make_vtab, rewrite, sweep_entry
from scipy import stats as scipy_stats

from src.configs import checks
from src.configs.config import changed, flatten, load_cfg
from src.data.tasks import TASKS
from src.engine.results import run_folder
from src.engine.run import run
from src.tools.report import __main__ as command
from src.tools.report import comparing, figures, stats
from src.tools.report.benchmarks import benchmarks
from src.tools.report.collect import collect
from src.tools.report.rows import Place, group
from src.tools.report.write import Options, build
from src.utils.io import read_json, write_json
from src.utils.text import aligned

DIGITS = dict(DATA__NAME="digits", DATA__DATAPATH="", DATA__FEATURE="vit_micro_glyphs")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch, request):
    """Pictures take seconds: only tests of pictures draw them."""
    if "pictures" not in request.node.name:
        monkeypatch.setattr(figures, "panels_chart", lambda *args: None)
        monkeypatch.setattr(figures, "bars_chart", lambda *args: None)
        monkeypatch.setattr("src.tools.report.page._picture", lambda path, text: "")


def report(tmp_path, *places, **options):
    found = collect(places or [tmp_path])
    return build(found, tmp_path / "report", Options(**options)), found


def table(made, title):
    return next(t for t in [*made.main, *made.others] if t.title == title)


def column(made, title, name):
    """First cell of each line -> the cell in a column."""
    some = table(made, title)
    return {line[0].text: line[some.head.index(name)] for line in some.lines}


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def vtab(tmp_path_factory):
    """Two methods on all 19 tasks with three seeds: the folder, and accuracy by method, task and seed."""
    output = tmp_path_factory.mktemp("vtab")
    methods = {
        "linear": (0.6, dict(MODEL__TRANSFER_TYPE="linear", without_head=0, seconds=3.0)),
        "lora": (0.62, dict(MODEL__TRANSFER_TYPE="lora")),
    }
    make_vtab(output, methods)
    written = {}
    for path in output.rglob("result.json"):
        result = json.loads(path.read_text())
        method = result["config"].get("MODEL.TRANSFER_TYPE", "linear")
        written.setdefault(method, {}).setdefault(result["data"]["task"], {})[result["seed"]] = result["test"]["top1"]
    return output, written


def test_both_means_and_their_spread_are_what_numpy_says(vtab, tmp_path):
    output, written = vtab
    made, _ = report(tmp_path, output)
    groups = {g: [t for t in VTAB if TASKS[t].group == g] for g in ("Natural", "Specialized", "Structured")}
    for method, accuracy in written.items():
        by_seed = {
            s: {g: np.mean([accuracy[t][s] for t in tasks]) for g, tasks in groups.items()} for s in (42, 44, 82)
        }
        expected = {
            "mean of 3 groups": [np.mean(list(means.values())) for means in by_seed.values()],
            "mean of 19 tasks": [np.mean([accuracy[t][s] for t in VTAB]) for s in (42, 44, 82)],
            "Structured": [means["Structured"] for means in by_seed.values()],
            "kitti": [accuracy["kitti"][s] for s in (42, 44, 82)],
        }
        for name, values in expected.items():
            summary = column(made, "VTAB-1k", name)[method].summary
            assert summary.mean == pytest.approx(np.mean(values), abs=1e-12)
            assert summary.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            low, high = scipy_stats.t.interval(0.95, 2, np.mean(values), scipy_stats.sem(values))
            assert (summary.low, summary.high) == (pytest.approx(low), pytest.approx(high))
            text = f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"
            assert column(made, "VTAB-1k", name)[method].text == text
    assert column(made, "VTAB-1k", "trained, M")["lora"].sort == 294_912
    heads = np.mean([769 * (2 + i) for i in range(19)])
    assert column(made, "VTAB-1k", "trained with head, M")["lora"].sort == pytest.approx(294_912 + heads)


def test_columns_are_in_the_benchmarks_order_and_each_best_is_shown(vtab, tmp_path):
    made, _ = report(tmp_path, vtab[0])
    assert table(made, "VTAB-1k").head[2:21] == VTAB
    for name in VTAB:
        cells = column(made, "VTAB-1k", name)
        best = max(cells, key=lambda method: cells[method].summary.mean)
        assert [method for method, cell in cells.items() if cell.best] == [best]


def test_paired_tests_and_ranks_are_scipys(vtab, tmp_path):
    output, written = vtab
    made, _ = report(tmp_path, output, baseline="linear")
    means = {m: np.array([fmean(tasks[t].values()) for t in VTAB]) for m, tasks in written.items()}
    differences = means["lora"] - means["linear"]
    some = table(made, "VTAB-1k: paired tests over tasks")
    line = dict(zip(some.head, some.lines[0], strict=True))
    assert (line["row"].text, line["compared with"].text, line["tasks"].sort) == ("lora", "linear", 19)
    assert line["p"].sort == pytest.approx(scipy_stats.wilcoxon(means["lora"], means["linear"]).pvalue)
    assert line["median difference"].sort == pytest.approx(np.median(differences))
    assert line["better"].sort == (differences > 0).sum()
    ranks = scipy_stats.rankdata(-np.array([means["lora"], means["linear"]]), axis=0).mean(axis=1)
    assert column(made, "VTAB-1k: average ranks", "average rank")["lora"].sort == pytest.approx(ranks[0])


def test_holms_correction_is_monotonous_and_leaves_out_what_was_not_tested():
    assert stats.holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


def test_equal_differences_are_ties_whatever_their_last_bits_say():
    differences = [0.3 - 0.2, 0.2 - 0.1, 0.1, -0.1, 0.2, 0.4 - 0.1, 0.5, 0.7]
    expected = scipy_stats.wilcoxon(np.round(differences, 8)).pvalue
    assert stats.paired_test(differences).p == pytest.approx(expected)
    assert stats.paired_test([0.0] * 7).p == 1.0


def test_five_tasks_have_no_p_value():
    assert stats.paired_test([0.1, 0.2, 0.3, 0.4, 0.5]).p is None


def test_means_with_different_seeds_are_pooled():
    cells = [{"1": 0.5, "2": 0.6, "3": 0.7}, {"1": 0.4, "2": 0.44}]
    pooled = stats.weighted(cells, [0.5, 0.5])
    a, b = stdev(cells[0].values()), stdev(cells[1].values())
    errors = [a**2 / 12, b**2 / 8]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 1)
    assert pooled.mean == pytest.approx((0.6 + 0.42) / 2)
    assert pooled.sd == pytest.approx(math.sqrt(a**2 + b**2) / 2)
    assert pooled.half == pytest.approx(scipy_stats.t.ppf(0.975, freedom) * math.sqrt(sum(errors)))
    assert stats.weighted([{"1": 0.5, "2": 0.6}, {"1": 0.4}], [0.5, 0.5]).half is None


def test_a_gap_leaves_means_blank_and_its_command_makes_the_missing_run(vtab, tmp_path):
    output, _ = vtab
    lists = [42, 44]
    make_vtab(tmp_path, {"ssf": (0.6, dict(MODEL__TRANSFER_TYPE="ssf", DATA__NUMBER_CLASSES=10))}, lists, VTAB[:17])
    made, _ = report(tmp_path, output, tmp_path)
    assert column(made, "VTAB-1k", "mean of 19 tasks")["ssf"].text == "–"
    assert column(made, "VTAB-1k", "mean of 3 groups")["ssf"].text == "–"
    assert column(made, "VTAB-1k", "Natural")["ssf"].summary is not None
    gaps = made.gaps
    assert {(gap.row, gap.task, gap.seed) for gap in gaps} == {
        ("ssf", task, str(seed)) for task in VTAB[17:] for seed in lists
    }
    words = shlex.split(gaps[0].command)
    assert words[:2] == ["vitune", "train"]
    cfg = load_cfg("", words[2:], check=checks.nothing)
    assert f"{cfg.DATA.NAME} {cfg.SEED} {cfg.MODEL.TRANSFER_TYPE}" == f"{VTAB[17]} 42 ssf"
    assert cfg.DATA.NUMBER_CLASSES == -1  # another task's
    make_run(tmp_path, 0.5, **{k.replace(".", "__"): v for k, v in changed(cfg).items() if k != "OUTPUT_DIR"})
    assert len(report(tmp_path, output, tmp_path)[0].gaps) == len(gaps) - 1


def test_a_command_survives_the_shell(tmp_path):
    keys = dict(DIGITS, MODEL__TRANSFER_TYPE="lora", DATA__MEAN="[0.1, 0.2, 0.3]", DATA__DATAPATH="a b/it's; $(x)")
    make_run(tmp_path, 0.9, SEED=1, **keys)
    folder = make_run(tmp_path, 0.9, SEED=2, **keys)
    make_run(tmp_path, 0.9, SEED=1, **keys | {"DATA__NAME": "stl10"})
    made, _ = report(tmp_path)
    words = shlex.split(made.gaps[0].command)[2:]
    cfg = load_cfg("", words, check=checks.nothing)
    theirs = load_cfg(folder.config, check=checks.nothing)
    assert changed(cfg) == changed(theirs) | {"DATA.NAME": "stl10"}


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda f: f.result.write_text(f.result.read_text()[:300]), "result.json is broken"),
        (lambda f: f.result.write_text(""), "result.json is broken"),
        (lambda f: f.result.write_text("[1]"), "holds list"),
        (lambda f: rewrite(f, test={"top1": math.nan, "images": 5}), "result.json is broken"),
        (lambda f: rewrite(f, test={"top1": None, "images": 5}), "not a fraction"),
        (lambda f: rewrite(f, test={"top1": 97.3, "images": 5}), "not a fraction"),
        (lambda f: rewrite(f, test={"top1": "0.9", "images": 5}), "not a fraction"),
        (lambda f: rewrite(f, test=None), "neither a test nor"),
        (lambda f: rewrite(f, config=None), "no config"),
        (lambda f: rewrite(f, cost={}), "no 'seconds'"),
        (lambda f: rewrite(f, parameters={"trained": "many", "head": 1}), "result.json is broken"),
        (lambda f: rewrite(f, pixels=None), "result.json is broken"),
        (lambda f: rewrite(f, data={"task": "digits", "metric": "F1"}), "metric 'F1' is unknown"),
        (lambda f: f.config.write_text("DATA: {NAME: ["), "config.yaml is broken"),
        (lambda f: f.config.unlink(), "config.yaml is missing"),
        (lambda f: f.result.unlink(), "unfinished"),
        (lambda f: (f.path / "sweep.json").write_text('{"sweep": 1}'), "sweep.json is broken"),
        (lambda f: f.result.write_bytes(b"\xff\xfe\x00"), "result.json is broken"),
    ],
)
def test_a_folder_that_cannot_be_used_is_listed_with_its_reason(tmp_path, break_it, reason):
    make_run(tmp_path, 0.9, SEED=1, **DIGITS)
    broken = make_run(tmp_path, 0.8, SEED=2, **DIGITS)
    break_it(broken)
    made, found = report(tmp_path)
    assert list(found.unused) == [broken.path]
    assert reason in found.unused[broken.path]
    assert str(broken.path) in [line[0].text for line in table(made, "Not used").lines]
    assert column(made, "other tasks", "digits")["linear"].summary.n == 1


def test_the_same_folder_counts_once_however_it_is_named(tmp_path):
    folder = make_run(tmp_path / "runs", 0.9, **DIGITS)
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "other").symlink_to(folder.path)
    _, found = report(tmp_path, tmp_path, tmp_path / "runs", folder.path, tmp_path / "other")
    assert len(found.runs) == 1
    assert not found.unused


def test_of_two_runs_with_the_same_settings_the_newer_counts_and_it_is_said(tmp_path):
    old, _ = (make_run(tmp_path / name, value, **DIGITS) for name, value in (("a", 0.9), ("b", 0.8)))
    os.utime(old.result, (1, 1))
    made, found = report(tmp_path)
    assert list(found.unused) == [old.path]
    assert "80.00 %" in found.unused[old.path]
    cell = column(made, "other tasks", "digits")["linear"]
    assert cell.text == "80.00"
    notes = table(made, "other tasks")
    assert "90.00 % instead of 80.00 %" in notes.text + " ".join(notes.notes.values())


def test_keys_that_differ_within_a_task_split_rows_and_others_do_not(tmp_path):
    for rank, seed in itertools.product((4, 8), (1, 2)):
        make_run(tmp_path, 0.7, MODEL__TRANSFER_TYPE="lora", MODEL__LORA__RANK=rank, SEED=seed, **DIGITS)
    for task, rate in (("cifar100", 0.1), ("dtd", 0.2)):  # a setting of the task
        make_run(tmp_path, 0.7, MODEL__TRANSFER_TYPE="ssf", SOLVER__BASE_LR=rate, DATA__NAME=task)
    make_run(tmp_path, 0.7, DATA__NUM_WORKERS=1, SEED=1, **DIGITS)  # not the experiment
    make_run(tmp_path, 0.7, DATA__NUM_WORKERS=2, SEED=2, **DIGITS)
    rows = group(collect([tmp_path]))
    assert sorted(row.label for row in rows) == ["linear", "lora, rank 4", "lora, rank 8", "ssf"]
    assert {row.label: len(row.runs) for row in rows} == {"linear": 2, "lora, rank 4": 2, "lora, rank 8": 2, "ssf": 2}


def test_settings_of_one_task_are_told_with_the_missing_run(tmp_path):
    for task, rate in (("cifar100", 0.1), ("dtd", 0.2)):
        make_run(tmp_path, 0.7, MODEL__TRANSFER_TYPE="ssf", SOLVER__BASE_LR=rate, DATA__NAME=task)
    made, _ = report(tmp_path)
    assert "check SOLVER.BASE_LR" in made.gaps[0].why


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (dict(environment={"git": "b" * 40}), "code version bbbbbbbbbb; in most of this table aaaaaaaaaa"),
        (dict(environment={"device": "Tesla T4"}), "device Tesla T4; in most of this table NVIDIA A100"),
        (dict(environment={"packages": {"torch": "2.6.0"}}), "torch version 2.6.0"),
        (dict(pixels={"decoder": "pil"}), "decoder pil instead of tf"),
        (dict(environment={"git": "a" * 40 + "+changes"}), "uncommitted changes"),
    ],
)
def test_runs_unlike_the_others_carry_a_mark_on_cell_row_and_mean(vtab, tmp_path, difference, said):
    keys = dict(MODEL__TRANSFER_TYPE="ssf")
    make_vtab(tmp_path, {"ssf": (0.6, keys)}, [42], VTAB[1:])
    make_run(tmp_path, 0.5, DATA__NAME=VTAB[0], SEED=42, **keys, **difference)
    made, _ = report(tmp_path, vtab[0], tmp_path)
    notes = table(made, "VTAB-1k").notes
    letter = next(letter for letter, text in notes.items() if said in text)
    for name in (VTAB[0], "Natural", "mean of 19 tasks", "method"):
        cell = column(made, "VTAB-1k", name)["ssf"]
        assert letter in cell.marks, name
    assert not column(made, "VTAB-1k", VTAB[1])["ssf"].marks
    assert not column(made, "VTAB-1k", VTAB[0])["lora"].marks
    if "uncommitted" not in said:
        assert any("the row mixes 2" in text for text in notes.values())


def test_other_test_images_than_the_benchmarks_are_said(tmp_path):
    folder, said = make_run(tmp_path, 0.9, **DIGITS), "the number of test images is not the benchmark's"
    assert said not in table(report(tmp_path)[0], "other tasks").text
    data = folder.read_result()["data"]
    rewrite(folder, data=data | {"images": {"train": 800, "test": 700}})
    assert said in table(report(tmp_path)[0], "other tasks").text


def test_what_holds_for_every_cell_is_said_once(tmp_path):
    make_run(tmp_path, 0.9, environment={"git": "a" * 40 + "+changes"}, **DIGITS)
    made, _ = report(tmp_path)
    assert "uncommitted" in table(made, "other tasks").text
    assert not table(made, "other tasks").notes


def make_sweep(output, method, chosen, **more):
    """Four tuning runs and two final runs of one cell."""
    over = {"DATA.NAME": "digits", "method": method}
    keys = dict(DIGITS, MODEL__TRANSFER_TYPE=method)
    candidates = []
    for rate, decay in itertools.product((0.1, 0.01), (0.001, 0.0001)):
        tuned = {"SOLVER.BASE_LR": rate, "SOLVER.WEIGHT_DECAY": decay}
        val = 0.8 + rate + decay
        entry = sweep_entry("s", "tune", method, over, tuned)
        settings = dict(SOLVER__BASE_LR=rate, SOLVER__WEIGHT_DECAY=decay, DATA__TRAIN_SPLIT="train")
        folder = make_run(output, val, tuning=True, sweep=entry, **settings, **keys)
        candidates.append({"tuned": tuned, "val": val, "folder": str(folder.path.relative_to(output))})
    tuned = {"SOLVER.BASE_LR": chosen, "SOLVER.WEIGHT_DECAY": 0.001}
    selection = {"rule": "The best.", "search": "grid", "candidates": candidates, "ties": 1, "stopped": 0, "failed": []}
    entry = sweep_entry("s", "final", method, over, tuned, selection=selection, **more)
    return [
        make_run(output, 0.7 + seed / 100, SEED=seed, SOLVER__BASE_LR=chosen, sweep=entry, **keys) for seed in (1, 2)
    ]


def test_tuning_runs_are_never_in_a_table_of_test_accuracies(tmp_path):
    make_sweep(tmp_path, "lora", 0.1)
    made, _ = report(tmp_path, ablation=["SOLVER.BASE_LR"])
    assert column(made, "other tasks", "digits")["lora"].summary.mean == pytest.approx(0.715)
    assert {len(line) for line in table(made, "other tasks").lines} == {8}
    chosen = table(made, "Chosen on validation")
    line = dict(zip(chosen.head, chosen.lines[0], strict=True))
    assert (line["validation, %"].text, line["candidates"].sort, line["with the best value"].sort) == ("90.10", 4, 1)
    some = table(made, "Validation: ablation over SOLVER.BASE_LR")
    assert [cell.text for cell in some.lines[0][2:]] == ["81.10", "90.10"]  # the best weight decay of each


def test_what_a_sweep_no_longer_chooses_is_not_used(tmp_path):
    old = make_sweep(tmp_path, "lora", 0.1)
    for folder in old:
        write_json(folder.sweep, read_json(folder.sweep) | {"stage": "superseded"})
    make_sweep(tmp_path, "lora", 0.01)
    _, found = report(tmp_path)
    assert all("has chosen other settings since" in found.unused[folder.path] for folder in old)


def test_runs_that_a_sweep_ended_say_why(tmp_path):
    make_run(tmp_path, 0.9, SEED=3, **DIGITS)
    folders = [make_run(tmp_path, 0.9, SEED=seed, **DIGITS) for seed in (1, 2)]
    for folder, about in zip(folders, ({"diverged": "the loss is nan"}, {"epoch": 5, "val": 0.5}), strict=True):
        folder.result.unlink()
        write_json(folder.stopped, about)
        write_json(folder.sweep, {})
    made, found = report(tmp_path)
    assert [found.unused[folder.path] for folder in folders] == ["the loss is nan", "stopped by asha after epoch 5"]
    assert not [gap for gap in made.gaps if "--resume" in gap.command]


def test_a_second_selection_takes_the_place_of_the_first(tmp_path):
    old = make_sweep(tmp_path, "lora", 0.1)
    for folder in old:
        os.utime(folder.result, (1, 1))
    make_sweep(tmp_path, "lora", 0.01)
    made, found = report(tmp_path)
    assert column(made, "other tasks", "digits")["lora"].summary.n == 2
    assert {folder.path for folder in old} <= set(found.unused)


def test_a_sweeps_plan_says_what_is_missing_and_what_failed(tmp_path):
    make_sweep(tmp_path, "lora", 0.1)
    cells = [
        {"over": {"DATA.NAME": "digits", "method": m}, "row": m, "task": "digits", "seeds": s, "tuning_runs": 4}
        for m, s in (("lora", [1, 2, 3]), ("ssf", ["SEED 1, DATA.SPLIT_SEED 1"]))
    ]
    go, other = (f"vitune tune {name}.yaml" for name in "st")
    cells = [cell | {"command": command} for cell, command in zip(cells, (go, other), strict=True)]
    cells[1]["reason"] = "every tuning run failed"
    failed = [{"folder": "digits/x", "reason": "out of memory", "command": go}]
    plan = {"sweep": "s", "published": None, "cells": cells, "failed": failed}
    write_json(tmp_path / "sweeps" / "s.json", plan)
    for place in (tmp_path, tmp_path / "digits"):  # the plan is found above the runs as well
        made, _ = report(tmp_path, place)
        assert [(gap.row, gap.seed, gap.command) for gap in made.gaps[:2]] == [
            ("lora", "3", go),
            ("ssf", "SEED 1, DATA.SPLIT_SEED 1", other),
        ]
        assert [gap.why for gap in made.gaps[:2]] == ["not done", "every tuning run failed"]
        assert "out of memory" in made.gaps[2].why


def test_an_unfinished_run_is_resumed(tmp_path):
    make_run(tmp_path, 0.9, SEED=1, **DIGITS)
    folder = make_run(tmp_path, 0.9, SEED=2, **DIGITS)
    folder.result.unlink()
    gaps = report(tmp_path)[0].gaps
    assert [gap.command for gap in gaps] == [f"vitune train --run-dir {folder.path} --resume"]


def test_pairs_are_compared_seed_by_seed_within_the_task(tmp_path):
    draw = np.random.default_rng(0)
    score = {}
    for task, seed, freqfit in itertools.product(VTAB[:8], (1, 2, 3), ("", "freqfit")):
        score[task, seed, freqfit] = float(draw.uniform(0.4, 0.6) + 0.02 * bool(freqfit))
        keys = dict(DATA__NAME=task, SEED=seed, FREQFIT=freqfit, MODEL__TRANSFER_TYPE="lora")
        # An own axis whose label tells nothing but the filter.
        over = {"DATA.NAME": task, "method": "lora", "filter": freqfit or "none"}
        make_run(tmp_path, score[task, seed, freqfit], sweep=sweep_entry("p", "final", "row", over, {}), **keys)
    made, _ = report(tmp_path)
    d = {t: [score[t, s, "freqfit"] - score[t, s, ""] for s in (1, 2, 3)] for t in VTAB[:8]}
    means = [fmean(values) for values in d.values()]
    some = table(made, "VTAB-1k: paired differences for FREQFIT")
    line = dict(zip(some.head, some.lines[0], strict=True))
    assert line["mean difference"].sort == pytest.approx(fmean(means))
    assert line["p"].sort == pytest.approx(scipy_stats.wilcoxon(means).pvalue)
    assert line["95 % interval"].sort == pytest.approx(scipy_stats.t.ppf(0.975, 7) * stdev(means) / math.sqrt(8))
    each = table(made, "VTAB-1k: paired differences for FREQFIT, task by task")
    kitti = next(line for line in each.lines if line[2].text == VTAB[3])
    assert kitti[4].sort == pytest.approx(fmean(d[VTAB[3]]))


def test_an_ablation_compares_the_tasks_that_all_values_have(tmp_path):
    for rank, tasks in ((1, 6), (4, 5), (16, 6)):
        for i, task in enumerate(VTAB[:tasks]):
            make_run(
                tmp_path,
                0.5 + rank / 100 + i / 20,
                MODEL__TRANSFER_TYPE="lora",
                MODEL__LORA__RANK=rank,
                DATA__NAME=task,
            )
    made, _ = report(tmp_path, ablation=["MODEL.LORA.RANK"])
    some = table(made, "VTAB-1k: ablation over MODEL.LORA.RANK")
    assert some.head[2:] == ["1", "4", "16"]
    assert [cell.text for cell in some.lines[0][1:]] == ["5", "61.00", "64.00", "76.00"]


def test_an_ablation_over_a_sweeps_own_axis_takes_the_methods_with_it(tmp_path):
    for method, (i, task) in itertools.product(("linear", "lora"), enumerate(VTAB[:3])):
        entry = sweep_entry("s", "final", method, {"DATA.NAME": task, "way": f"the {method} way"}, {})
        accuracy = 0.5 + 0.1 * (method == "lora") + i / 10
        make_run(tmp_path, accuracy, DATA__NAME=task, MODEL__TRANSFER_TYPE=method, sweep=entry)
    made, _ = report(tmp_path, ablation=["way"])
    some = table(made, "VTAB-1k: ablation over way")
    assert some.head[2:] == ["the linear way", "the lora way"]
    assert [cell.text for cell in some.lines[0][2:]] == ["60.00", "70.00"]


def test_few_shot_tables_are_one_per_number_of_shots_and_zero_means_sixteen(tmp_path):
    for task, shots, split in itertools.product(FEW_SHOT, (0, 4), (0, 1)):
        make_run(tmp_path, 0.5 + shots / 100, DATA__NAME=task, DATA__SHOTS=shots, DATA__SPLIT_SEED=split)
    made, _ = report(tmp_path)
    assert [t.title for t in made.main] == ["few-shot, 4 per class", "few-shot, 16 per class"]
    assert column(made, made.main[0].title, "mean of 5 tasks")["linear"].text == "54.00 ± 0.00"
    assert column(made, made.main[1].title, "mean of 5 tasks")["linear"].summary.n == 2


def test_tasks_with_settings_of_their_own_are_columns_of_one_row(tmp_path):
    """As in a sweep whose axis "task" has a label for each task, and its learning rate."""
    for i, task in enumerate(("dtd", "pets")):
        entry = sweep_entry("rlrr", "final", "", {"task": f"{task}, its own"}, {}, task_axes=["task"])
        make_run(tmp_path, 0.5, DATA__NAME=task, MODEL__TRANSFER_TYPE="rlrr", SOLVER__BASE_LR=0.1 + i, sweep=entry)
    (row,) = group(collect([tmp_path]))
    assert (row.label, [str(place) for place in row.cells]) == ("rlrr", ["dtd", "pets"])


def test_best_test_epochs_stand_in_columns_of_their_own(tmp_path):
    make_run(tmp_path, 0.9, more={"test_best_epoch": {"top1": 0.95, "epoch": 7}}, **DIGITS)
    make_run(tmp_path, 0.8, MODEL__TRANSFER_TYPE="lora", **DIGITS)
    made, _ = report(tmp_path)
    assert column(made, "other tasks", "digits")["linear"].text == "90.00"
    best = column(made, "other tasks", "digits, best test epoch")
    assert (best["linear"].text, best["lora"].text) == ("95.00", "–")
    assert [t.title for t in made.main] == ["other tasks", "other tasks, best test epoch"]


def published(epoch):
    values = {"cifar100": 71.0, "mean of 19 tasks": 75.1}
    protocol = {"pixels": "x", "epoch": epoch, "seeds": "1"}
    return SimpleNamespace(
        method="LoRA", backbone="B", source="A & B, Table 1", values=values, params_millions=0.29, protocol=protocol
    )


@pytest.mark.parametrize("epoch", ["last", "best on test"])
def test_published_figures_stand_beside_ours_with_what_makes_them_incomparable(vtab, tmp_path, monkeypatch, epoch):
    theirs, asked = published(epoch), []

    def find(benchmark, methods=(), backbone=""):
        asked.append((benchmark, *methods, backbone))
        if list(methods) == ["lora"]:
            return [theirs]
        raise ValueError("unknown")

    seen = []
    module = SimpleNamespace(find=find, reasons=lambda results, one: seen.append(results) or ["other pixels"])
    monkeypatch.setitem(__import__("sys").modules, "src.tools.report.published", module)
    monkeypatch.setattr("src.tools.report.published", module, raising=False)
    made, _ = report(tmp_path, vtab[0], published=[])
    assert ("vtab-1k", "lora", "sup_vitb16_imagenet21k") in asked
    assert len(seen[0]) == 57  # the method's own runs: 19 tasks, 3 seeds
    label = "LoRA [1]" + (", best test epoch" if epoch != "last" else "")
    assert table(made, "VTAB-1k").notes["1"] == "published: A & B, Table 1"
    last, mean = column(made, "VTAB-1k", "cifar100")[label], column(made, "VTAB-1k", "mean of 19 tasks")[label]
    assert (last.text, mean.text) == (("71.0", "75.1") if epoch == "last" else ("–", "–"))
    assert "not comparable: other pixels" in table(made, "VTAB-1k").notes.values()
    assert column(made, "VTAB-1k", "method")[label].marks
    if epoch != "last":
        assert column(made, "VTAB-1k", "mean of 19 tasks, best test epoch")[label].text == "75.1"
        assert column(made, "VTAB-1k, best test epoch", "cifar100, best test epoch")[label].text == "71.0"
    with pytest.raises(ValueError, match="unknown"):
        report(tmp_path, vtab[0], published=["nothing"])


def test_repeated_figures_show_the_difference_and_the_factors(tmp_path):
    entry = sweep_entry("r", "final", "lora", {"DATA.NAME": "cifar100"}, {}, published={"METHOD": "LoRA"})
    for seed, accuracy in ((1, 0.70), (2, 0.71)):
        more = {"test_best_epoch": {"top1": accuracy + 0.1, "epoch": 7}}
        keys = {"DATA__NAME": "cifar100", "MODEL__TRANSFER_TYPE": "lora"}
        make_run(tmp_path, accuracy, more=more, SEED=seed, sweep=entry, **keys)
    rows = group(collect([tmp_path]))
    made = comparing.repro_table(rows, lambda spec: [published("last")], lambda runs, one: [("seeds", "2", "1")])
    line = [cell.text for cell in made.lines[0]]
    assert line[2:7] == ["cifar100", "70.50 ± 0.71", "71.0", "-0.50", "80.50 ± 0.71"]
    assert made.head[6] == "ours, best test epoch, %"
    assert line[8] == "seeds: ours 2, theirs 1"


def test_the_command_writes_everything_and_csv_has_every_run(tmp_path, capsys):
    make_run(tmp_path / "runs", 0.9, SEED=1, **DIGITS)
    make_run(tmp_path / "runs", 0.8, SEED=2, **DIGITS)
    assert command.main([str(tmp_path / "runs"), "--to", str(tmp_path / "to"), "--title", "A | <b>\n& $x_1$"]) == 0
    assert "85.00 ± 7.07" in capsys.readouterr().out
    runs = read(tmp_path / "to" / "report.csv")
    assert [(run["seed"], float(run["accuracy"]), run["row"]) for run in runs] == [
        ("1", 0.9, "linear"),
        ("2", 0.8, "linear"),
    ]
    cell = next(line for line in read(tmp_path / "to" / "tables.csv") if line["column"] == "digits")
    assert float(cell["high"]) == pytest.approx(0.85 + scipy_stats.t.ppf(0.975, 1) * 0.05)
    assert "<b>" not in (tmp_path / "to" / "report.html").read_text().replace("<b>&", "")
    tex = (tmp_path / "to" / "report.tex").read_text()
    assert tex.startswith("% A | <b> & $x_1$\n% ")
    assert r"85.00 $\pm$ 7.07" in tex
    markdown = (tmp_path / "to" / "report.md").read_text()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9}


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["{runs}", "--baseline", "lorra"], "not a row of the tables", 2),
        (["{runs}", "--tasks", "cifar1000"], "did you mean", 2),
        (["{runs}", "--ablation", "MODEL.LORA.RNK"], "MODEL.LORA.RANK", 2),
        (["{runs}/nowhere"], "is not a folder", 1),
        (["{empty}"], "there are no runs", 1),
    ],
)
def test_bad_options_are_one_line_that_says_what_to_do(tmp_path, capsys, arguments, message, status):
    make_run(tmp_path / "runs", 0.9, **DIGITS)
    (tmp_path / "empty").mkdir()
    places = dict(runs=tmp_path / "runs", empty=tmp_path / "empty")
    arguments = [argument.format(**places) for argument in arguments]
    assert command.main([*arguments, "--to", str(tmp_path / "to")]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_a_table_wider_than_the_terminal_goes_on_below_with_its_names():
    lines = [["row", "one", "two"], ["a", "1.0", "2.0"]]
    assert aligned(lines).splitlines() == ["row  one  two", "-------------", "a    1.0  2.0"]
    below = aligned(lines, width=10).split("\n\n")
    assert [part.splitlines()[2] for part in below] == ["a    1.0", "a    2.0"]


def test_only_the_tasks_asked_for(vtab, tmp_path):
    made, _ = report(tmp_path, vtab[0], tasks=["specialized"])
    assert table(made, "VTAB-1k").head[2:7] == ["camelyon", "eurosat", "resisc45", "retino", "Specialized"]
    assert not any("mean of" in name for name in table(made, "VTAB-1k").head)


def test_a_real_run_is_read_as_it_was_written(tmp_path):
    cfg = load_cfg(
        "configs/digits.yaml", ["MODEL.TRANSFER_TYPE", "linear", "SOLVER.TOTAL_EPOCH", "1", "OUTPUT_DIR", tmp_path]
    )
    result = run(cfg, run_folder(cfg), resume=False)
    made, found = report(tmp_path)
    assert not found.unused
    cell = column(made, "other tasks", "digits")["linear"]
    assert cell.summary.mean == result["test"]["top1"]
    assert found.runs[0].config == flatten(cfg)


def test_pictures_are_drawn_as_png_and_pdf(tmp_path):
    for i, (task, method) in enumerate(itertools.product(("cifar100-500", "cifar100-1k"), ("linear", "lora"))):
        for seed in (1, 2):
            make_run(tmp_path, 0.5 + i / 20 + seed / 100, DATA__NAME=task, MODEL__TRANSFER_TYPE=method, SEED=seed)
    made, _ = report(tmp_path, ablation=["MODEL.TRANSFER_TYPE"])
    assert set(made.pictures) == {
        "many-shot-parameters",
        "many-shot-time",
        "many-shot-curves",
        "many-shot-ablation-over-model-transfer-type",
    }
    for name in made.pictures:
        folder = tmp_path / "report" / "figures"
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (folder / f"{name}.pdf").read_bytes()[:4] == b"%PDF"


def test_curves_hold_the_accuracies_at_the_number_of_training_images(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "panels_chart", lambda panels, xlabel, *rest: drawn.update({xlabel: panels}))
    for task in ("cifar100-500", "cifar100-1k"):
        make_run(tmp_path, 0.5, DATA__NAME=task, MODEL__TRANSFER_TYPE="lora")
    rows = group(collect([tmp_path]))
    figures.draw_all(benchmarks(rows), rows, tmp_path)
    assert drawn["training images"] == {"cifar100": {"lora": ([400, 800], [50.0, 50.0], [None, None])}}
    assert Place("cifar100-1k") in rows[0].cells
