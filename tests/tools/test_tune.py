"""Sweeps through their door: plans, choice on validation, one look at the test set, interruptions, workers, Ray."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from programs import FORKS, Program
from safetensors.torch import load_file

from src.configs.config import ConfigError, load_cfg
from src.engine.results import RunFolder
from src.engine.run import run
from src.engine.shared import Shared
from src.tools.tune import pools
from src.tools.tune.__main__ import main
from src.tools.tune.ledger import Ledger
from src.tools.tune.plan import Plan
from src.tools.tune.points import points
from src.tools.tune.spec import load_sweep

DIGITS = Path("configs/digits.yaml").absolute()
QUICK = ["MODEL.TRANSFER_TYPE", "linear", "SOLVER.TOTAL_EPOCH", "2", "SOLVER.WARMUP_EPOCH", "0"]

GRID = """
  TUNE:
    SOLVER.BASE_LR: [0.05, 0.001]
    SOLVER.WEIGHT_DECAY: [0.01, 0.0001]
  SEEDS: [1, 2]
"""


@pytest.fixture
def sweep(tmp_path):
    """Writes a sweep file of linear probing on digits; its path, and the arguments for it."""

    def write(section: str, name: str = "grid", base: str = "") -> list[str]:
        file, small = tmp_path / f"{name}.yaml", tmp_path / "small.yaml"
        small.write_text(f"_BASE_: {DIGITS}\nDATA: {{CROPSIZE: 16}}\n")
        file.write_text(f"_BASE_: {small}\n{base}SWEEP:{section}")
        return ["--config-file", str(file), *QUICK, "OUTPUT_DIR", str(tmp_path / "out")]

    return write


def plan_of(arguments: list[str]) -> Plan:
    return Plan(load_sweep(arguments[1], arguments[2:]))


def results(root: Path, stage: str) -> dict[Path, dict]:
    """Folder -> result.json of the runs of a stage, by sweep.json."""
    found = {}
    for file in sorted(root.rglob("sweep.json")):
        if json.loads(file.read_text())["stage"] == stage:
            found[file.parent] = json.loads((file.parent / "result.json").read_text())
    return found


# --- plans


def test_every_combination_is_a_cell_with_its_own_grid(sweep):
    plan = plan_of(
        sweep(
            """
  OVER:
    DATA.CROPSIZE: [32, 64]
    method:
      linear: {SOLVER.MOMENTUM: 0.5}
      lora: {SOLVER.MOMENTUM: 0.6, TUNE: {MODEL.LORA.RANK: [1, 2, 4], SOLVER.WEIGHT_DECAY: [0.5]}}
"""
            + GRID
        )
    )
    assert [cell.row for cell in plan.cells] == [
        "CROPSIZE 32, linear", "CROPSIZE 32, lora", "CROPSIZE 64, linear", "CROPSIZE 64, lora",
    ]  # fmt: skip
    assert [len(cell.tuning) for cell in plan.cells] == [4, 6, 4, 6]
    assert [run.tuned for run in plan.cells[0].tuning] == [
        {"SOLVER.BASE_LR": lr, "SOLVER.WEIGHT_DECAY": decay} for lr in (0.05, 0.001) for decay in (0.01, 0.0001)
    ]
    ranks = {(run.tuned["MODEL.LORA.RANK"], run.tuned["SOLVER.WEIGHT_DECAY"]) for run in plan.cells[1].tuning}
    assert ranks == {(1, 0.5), (2, 0.5), (4, 0.5)}
    assert [run.label for run in plan.cells[3].finals] == ["seed 1", "seed 2"]
    assert len({run.folder.path for run in plan.runs}) == len(plan.runs) == 28


def test_groups_of_tasks_are_rows_of_the_table_of_tasks(sweep):
    plan = plan_of(sweep("\n  PROTOCOL: fixed\n  OVER: {DATA.NAME: [vtab-1k, fgvc, digits]}\n  SEEDS: [1]\n"))
    names = [cell.task for cell in plan.cells]
    assert len(names) == 25
    assert names[0] == "caltech101"
    assert names[18] == "smallnorb-elevation"
    assert names[-1] == "digits"
    assert all(cell.row == "" and not cell.tuning for cell in plan.cells)


def test_an_axis_of_tasks_may_bring_settings_of_each(sweep):
    plan = plan_of(
        sweep("""
  PROTOCOL: fixed
  OVER:
    task:
      cifar100: {DATA.NAME: cifar100, SOLVER.BASE_LR: 3e-3}
      dtd: {DATA.NAME: dtd, SOLVER.BASE_LR: 2e-3}
  SEEDS: [1, {SEED: 2, DATA.SPLIT_SEED: 3}]
""")
    )
    assert [(cell.task, cell.row) for cell in plan.cells] == [("cifar100", ""), ("dtd", "")]
    assert "lr0.003" in plan.cells[0].finals[0].folder.path.name
    assert "lr0.002" in str(plan.cells[1].finals[0].folder.path)
    assert plan.cells[1].finals[1].label == "seed SEED 2, DATA.SPLIT_SEED 3"


def test_random_points_are_different_and_always_the_same(sweep):
    section = """
  SEARCH: random
  SAMPLES: 7
  TUNE:
    SOLVER.BASE_LR: {log_uniform: [1e-4, 1]}
    MODEL.LORA.RANK: {integer: [2, 5]}
    SOLVER.MOMENTUM: [0.8, 0.9]
"""
    loaded = load_sweep(*(arguments := sweep(section))[1:2], arguments[2:])
    first, again = points(loaded.tune, loaded), points(loaded.tune, loaded)
    assert first == again
    assert len(first) == len({str(labels) for labels, _ in first}) == 7
    for _, settings in first:
        assert 1e-4 <= settings["SOLVER.BASE_LR"] <= 1
        assert settings["MODEL.LORA.RANK"] in (2, 3, 4, 5)
    lrs = sorted(settings["SOLVER.BASE_LR"] for _, settings in first)
    assert lrs[0] < 0.01 < lrs[-1]  # decades, not the upper end alone


def test_a_value_on_the_command_line_takes_the_place_of_an_axis(sweep):
    plan = plan_of([*sweep(GRID), "SOLVER.BASE_LR", "0.3", "SWEEP.SEEDS", "[5]", "SWEEP.TUNE.MODEL.MLP_NUM", "[0, 1]"])
    assert [run.tuned for run in plan.cells[0].tuning] == [
        {"SOLVER.BASE_LR": 0.3, "SOLVER.WEIGHT_DECAY": decay, "MODEL.MLP_NUM": number}
        for decay in (0.01, 0.0001)
        for number in (0, 1)
    ]
    assert [run.label for run in plan.cells[0].finals] == ["seed 5"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("\n  TUNE: {SOLVER.BASE_LRR: [1, 2]}\n", "unknown key SOLVER.BASE_LRR in SWEEP.TUNE; did you mean"),
        ("\n  OVER: {MODEL.LORA.RANKS: [1]}\n", "did you mean MODEL.LORA.RANK"),
        ("\n  TUNE: {SOLVER.BASE_LR: []}\n", "SWEEP.TUNE SOLVER.BASE_LR is empty"),
        ("\n  TUNE: {SOLVER.BASE_LR: 0.1}\n", "must be a list of values"),
        ("\n  TUNE: {SOLVER.BASE_LR: [0.1, 1e-1]}\n", "are identical|has 0.1 twice"),
        ("\n  TUNE: {SOLVER.BASE_LR: [0.1, 1.0e-1]}\n", "has 0.1 twice"),
        ("\n  TUNE: {DATA.NUM_WORKERS: [1, 2]}\n", "are identical .folder"),
        ("\n  OVER: {way: {a: {}, b: {}}}\n", "are identical .folder"),
        ("\n  TUNE: {SOLVER.BASE_LR: [a, 2]}\n", "SOLVER.BASE_LR in SWEEP.TUNE is 'a'; it must be a number"),
        ("\n  TUNE: {SOLVER.BASE_LR: {log_uniform: [0, 1]}}\n", "must be \\[lowest, highest\\] above 0"),
        ("\n  TUNE: {SOLVER.BASE_LR: {uniform: [0, 1]}}\n", "a range needs SWEEP.SEARCH random or asha"),
        ("\n  PROTOCOL: fixed\n  TUNE: {SOLVER.BASE_LR: [1, 2]}\n", "chooses nothing, but SWEEP.TUNE has"),
        ("\n  SEARCH: gird\n", "SWEEP.SEARCH is 'gird'; known: grid, random, asha"),
        ("\n  SEEDS: []\n", "SWEEP.SEEDS is empty"),
        ("\n  SEEDS: [1, 1]\n", "SWEEP.SEEDS has 1 twice"),
        ("\n  SEEDS: [x]\n", "SWEEP.SEEDS has 'x'"),
        ("\n  SEDS: [1]\n", "unknown key SWEEP.SEDS; did you mean SWEEP.SEEDS"),
        ("\n  OVER: {DATA.NAME: [vtab-2k]}\n", "which is unknown"),
        ("\n  OVER: {SOLVER.BASE_LR: [1]}\n  TUNE: {SOLVER.BASE_LR: [1]}\n", "axis of both SWEEP.OVER and SWEEP.TUNE"),
        ("\n  TUNING: {DATA.NO_TEST: False}\n  TUNE: {SOLVER.BASE_LR: [1, 2]}\n", "would read the test set"),
        ("\n  TUNING: {DATA.TRAIN_SPLIT: trainval}\n  TUNE: {SOLVER.BASE_LR: [1, 2]}\n", "would train on trainval"),
        (
            "\n  SEARCH: asha\n  ASHA: {MIN_EPOCHS: 1}\n  TUNING: {DATA.TRAIN_SPLIT: train, DATA.NO_TEST: True, "
            "SOLVER.EVAL_EVERY: 0}\n  TUNE: {SOLVER.BASE_LR: [1, 2]}\n",
            "set SOLVER.EVAL_EVERY 1",
        ),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_run_is_refused_before_anything_does(sweep, section, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        plan_of(sweep(section))
    assert main(sweep(section)) == 2
    assert not (tmp_path / "out").exists()


def test_an_axis_of_ones_own_is_set_on_the_command_line(sweep):
    """A label without settings keeps the file's; others are new, or take the place of the file's."""
    path = sweep(" {OVER: {method: {a: {SEED: 1}, b: {SEED: 2}, c: {SEED: 3}}}, PROTOCOL: fixed}\n")[1]
    for said in ("{a: , b: {SEED: 7}, d: {SEED: 8}}", "{'a': None, 'b': {'SEED': 7}, 'd': {'SEED': 8}}"):
        choices = load_sweep(path, ["SWEEP.OVER.method", said]).over["method"]
        assert {choice.label: choice.settings for choice in choices} == {
            "a": {"SEED": 1}, "b": {"SEED": 7}, "d": {"SEED": 8},
        }  # fmt: skip
    assert [one.label for one in load_sweep(path, ["SWEEP.OVER.method", "[c]"]).over["method"]] == ["c"]


def test_axes_on_the_command_line_that_are_wrong_are_refused(sweep):
    method = "\n  OVER: {method: {a: {MODEL.TRANSFER_TYPE: linear}, b: {MODEL.TRANSFER_TYPE: lora}}}\n"
    arguments = [word for word in sweep(method) if word not in QUICK[:2]]
    for extra, message in (
        (["MODEL.TRANSFER_TYPE", "lora"], "is set by the axis method"),
        (["SWEEP.OVER.method", "[c]"], "SWEEP.OVER.method has no c; known: a, b"),
        (["SWEEP.SEEDZ", "[1]"], "did you mean SWEEP.SEEDS"),
        (["SOLVER.BASE_LR"], "needs pairs"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_of([*arguments, *extra])


def test_train_py_says_what_a_sweep_file_is_for(sweep):
    with pytest.raises(ConfigError, match="describes a sweep: run it with vitune tune "):
        load_cfg(sweep(GRID)[1])


def test_a_run_file_is_no_sweep():
    with pytest.raises(ConfigError, match="has no section SWEEP"):
        load_sweep(DIGITS)


def test_a_dry_run_counts_and_estimates_and_leaves_nothing(sweep, tmp_path, capsys):
    assert main([*sweep(GRID), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 runs: 4 to choose, 2 to be tested; 6 are left" in said
    assert "BASE_LR 0.05, WEIGHT_DECAY 0.01" in said
    assert "estimated time: 0" in said
    assert not (tmp_path / "out").exists()


# --- runs


def test_validation_chooses_and_the_test_set_is_read_once(sweep, tmp_path, capsys):
    arguments = sweep(GRID)
    assert main(arguments) == 0
    root = tmp_path / "out"
    tuning, finals = results(root, "tune"), results(root, "final")
    assert len(tuning) == 4
    assert len(finals) == 2
    for folder, result in tuning.items():
        assert result["test"] is None
        assert result["data"]["images"] == {"train": 800, "val": 200}
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["val_top1"] == result["val"]["top1"]
    # the choice again, from the files alone
    settings = [(r["val"]["top1"], r["config"]["SOLVER.BASE_LR"], r["config"].get("SOLVER.WEIGHT_DECAY", 0.0001))
                for r in tuning.values()]  # fmt: skip
    val, lr, decay = min(settings, key=lambda s: (-s[0], s[1], s[2]))
    for folder, result in finals.items():
        assert result["config"]["SOLVER.BASE_LR"] == lr
        assert result["config"].get("SOLVER.WEIGHT_DECAY", 0.0001) == decay
        assert result["test"]["images"] == 797
        assert result["data"]["images"] == {"train": 1000, "test": 797}
        record = json.loads((folder / "sweep.json").read_text())
        assert record["selection"]["val"] == val
        assert record["seed"] in ("1", "2")
        assert len(record["selection"]["candidates"]) == 4
    plan = json.loads((root / "sweeps" / "grid.json").read_text())
    assert set(plan["cells"][0]["finals"]) == {"1", "2"}
    assert not plan["failed"]

    before = {path: path.stat().st_mtime_ns for path in root.rglob("result.json")}
    capsys.readouterr()
    assert main(arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("result.json")}
    assert "6 of 6 runs done" in capsys.readouterr().out


def ledger_with(sweep, vals: dict[tuple[float, float], float]) -> Ledger:
    """A ledger whose tuning runs all ended, with these validation accuracies."""
    ledger = Ledger(plan_of(sweep(GRID)), "command")
    (cell,) = ledger.plan.cells
    for one in cell.tuning:
        one.state, one.val = "done", vals[one.tuned["SOLVER.BASE_LR"], one.tuned["SOLVER.WEIGHT_DECAY"]]
    ledger.ready.clear()
    assert ledger._choose(cell)
    return ledger


def test_ties_go_to_the_smaller_learning_rate_then_to_the_smaller_decay(sweep):
    even = dict.fromkeys([(0.05, 0.01), (0.05, 0.0001), (0.001, 0.01), (0.001, 0.0001)], 0.5)
    chosen = ledger_with(sweep, even).plan.cells[0].selection
    assert chosen["chosen"] == {"SOLVER.BASE_LR": 0.001, "SOLVER.WEIGHT_DECAY": 0.0001}
    assert chosen["ties"] == 4
    chosen = ledger_with(sweep, even | {(0.001, 0.01): 0.4, (0.001, 0.0001): 0.4}).plan.cells[0].selection
    assert chosen["chosen"] == {"SOLVER.BASE_LR": 0.05, "SOLVER.WEIGHT_DECAY": 0.0001}
    assert chosen["ties"] == 2
    best = ledger_with(sweep, even | {(0.05, 0.01): 0.505})
    assert best.plan.cells[0].selection["chosen"] == {"SOLVER.BASE_LR": 0.05, "SOLVER.WEIGHT_DECAY": 0.01}
    assert [run.tuned["SOLVER.WEIGHT_DECAY"] for run in best.ready] == [0.01, 0.01]


def test_a_larger_grid_takes_the_place_of_an_earlier_choice(sweep, tmp_path):
    few = "\n  TUNE: {SOLVER.BASE_LR: [1e-7, 2e-7]}\n  SEEDS: [1]\n"
    more = "\n  TUNE: {SOLVER.BASE_LR: [1e-7, 2e-7, 0.05]}\n  SEEDS: [1]\n"
    assert main(sweep(few)) == 0
    assert main(sweep(more)) == 0
    root = tmp_path / "out"
    (final,), (old,) = results(root, "final").values(), results(root, "superseded").values()
    assert final["config"]["SOLVER.BASE_LR"] == 0.05
    assert old["config"]["SOLVER.BASE_LR"] < 1e-6
    assert final["test"]["top1"] > old["test"]["top1"]


def test_failed_and_diverged_runs_do_not_stop_the_others(sweep, tmp_path, capsys):
    """A loss that is not finite is an answer; a data set that is not there is none."""
    section = """
  OVER:
    task:
      digits: {DATA.NAME: digits}
      away: {DATA.NAME: folder, DATA.DATAPATH: not-there}
  TUNE: {SOLVER.BASE_LR: [0.05, 1.0e+30]}
  SEEDS: [1]
"""
    assert main(sweep(section)) == 1
    said = capsys.readouterr()
    assert "failed: folder, BASE_LR 0.05: DATA.DATAPATH" in said.err
    assert "is not a folder" in said.err
    assert "diverged digits, BASE_LR 1e+30: the loss is" in said.out
    assert "nothing chosen for folder: none of its tuning runs was finished" in said.err
    (final,) = results(tmp_path / "out", "final").values()
    assert final["data"]["task"] == "digits"
    assert final["config"]["SOLVER.BASE_LR"] == 0.05
    plan = json.loads((tmp_path / "out/sweeps/grid.json").read_text())
    assert [entry["run"] for entry in plan["failed"]] == [
        "digits, BASE_LR 1e+30", "folder, BASE_LR 0.05", "folder, BASE_LR 1e+30",
    ]  # fmt: skip
    assert main(sweep(section)) == 1  # what diverged is not tried again, what failed is
    assert "diverged" not in capsys.readouterr().out


def test_nothing_is_chosen_while_a_tuning_run_has_no_answer(sweep, tmp_path, capsys):
    arguments = sweep(GRID)
    plan = plan_of(arguments)
    broken = plan.cells[0].tuning[1].folder
    broken.path.mkdir(parents=True)
    broken.result.write_text('{"test": null, "val": {"top1": 0.')
    assert main(arguments) == 1
    assert f"{broken.result} is broken" in capsys.readouterr().err
    assert not results_of_finals(tmp_path)
    assert main([*arguments, "--without-failed"]) == 1
    records = [json.loads((path / "sweep.json").read_text()) for path in results_of_finals(tmp_path)]
    assert len(records) == 2
    assert len(records[0]["selection"]["candidates"]) == 3
    assert "is broken" in records[0]["selection"]["failed"][0]["reason"]
    broken.result.unlink()
    assert main(arguments) == 0
    assert len(results(tmp_path / "out", "tune")) == 4


def results_of_finals(tmp_path: Path) -> list[Path]:
    return [p.parent for p in (tmp_path / "out").rglob("sweep.json") if json.loads(p.read_text())["stage"] == "final"]


def test_a_broken_plan_and_a_folder_that_is_a_file_are_one_line(sweep, tmp_path, capsys):
    file = tmp_path / "out" / "sweeps" / "grid.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"cells": [')
    assert main(sweep(GRID)) == 1
    assert f"error: {file} is broken: remove it" in capsys.readouterr().err
    (tmp_path / "flat").write_text("")
    assert main([*sweep(GRID), "OUTPUT_DIR", str(tmp_path / "flat")]) == 1
    assert "flat" in capsys.readouterr().err


def test_asha_stops_the_worse_ones_for_good(sweep, tmp_path, capsys):
    section = """
  SEARCH: asha
  ASHA: {MIN_EPOCHS: 1, FACTOR: 4}
  TUNE: {SOLVER.BASE_LR: [0.05, 1e-7, 2e-7, 3e-7]}
  SEEDS: [1]
"""
    assert main(sweep(section)) == 0
    stopped = sorted((tmp_path / "out").rglob("stopped.json"))
    assert len(stopped) == 3
    assert all(json.loads(path.read_text())["epoch"] == 1 for path in stopped)
    for path in stopped:
        assert not RunFolder(path.parent).result.exists()
        assert RunFolder(path.parent).metrics.read_text().count("\n") == 1
    (final,) = results_of_finals(tmp_path)
    record = json.loads((final / "sweep.json").read_text())["selection"]
    assert record["chosen"] == {"SOLVER.BASE_LR": 0.05}
    assert record["stopped"] == len(stopped)
    capsys.readouterr()
    assert main(sweep(section)) == 0
    assert "stopped  " not in capsys.readouterr().out


def same_runs(one: Path, other: Path) -> None:
    """Every run of one sweep came out as in the other, to the bit."""
    mine, theirs = (sorted(p.relative_to(root) for p in root.rglob("result.json")) for root in (one, other))
    assert mine == theirs
    assert mine
    for name in mine:
        a, b = (json.loads((root / name).read_text()) for root in (one, other))
        assert (a["val"], a["test"], a["train_loss"]) == (b["val"], b["test"], b["train_loss"]), name


@pytest.fixture
def start():
    """Starts the command in a process of its own, which is gone when the test ends, however it ends."""
    begun = []

    def start(arguments: list[str], log: Path) -> Program:
        begun.append(Program("-m", "src.tools.tune", *arguments, output=log))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def wait_for(what, seconds: float = 300):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def children(pid: int) -> list[int]:
    """Processes started by another that do runs."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


def ray_run() -> int | None:
    """A process of Ray's that is at a run."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::ImplicitFunc.train"):
                return int(path.parent.name)
    return None


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing(sweep, start, tmp_path):
    """One worker is killed, then the sweep is asked to stop; the same command then ends as if nothing had been."""
    arguments, log = sweep(GRID), tmp_path / "log"
    arguments[arguments.index("SOLVER.TOTAL_EPOCH") + 1] = "60"  # long enough to be killed in
    process = start([*arguments, "--workers", "2"], log)
    root = tmp_path / "out"
    wait_for(lambda: list(root.rglob("metrics.jsonl")))
    os.kill(children(process.pid)[0], signal.SIGKILL)
    wait_for(lambda: "its process died (1 of 3 times)" in log.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 75, log.read_text()
    assert "run the same command again to continue" in log.read_text()
    assert main(arguments) == 0
    alone = [word.replace(str(root), str(tmp_path / "alone")) for word in arguments]
    assert main(alone) == 0
    same_runs(root, tmp_path / "alone")


def deaf(connection) -> None:
    """A worker that is at the very end of a run when it is told to stop: the signal changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send("ready")
    SERVE(connection)


SERVE = pools._serve


def test_a_worker_that_the_signal_does_not_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(pools.multiprocessing, "get_context", lambda _: FORKS)
    monkeypatch.setattr(pools, "_serve", deaf)
    workers = pools.Workers(1)
    (worker,) = workers.places
    assert worker.connection.recv() == "ready"
    workers.stop()
    assert worker.process.exitcode == 0  # it was not killed after two minutes


@pytest.mark.slow
def test_ray_does_the_runs_and_does_lost_ones_again(sweep, start, tmp_path):
    arguments, log = sweep("\n  TUNE: {SOLVER.BASE_LR: [0.05, 0.001]}\n  SEEDS: [1]\n"), tmp_path / "log"
    arguments[arguments.index("SOLVER.TOTAL_EPOCH") + 1] = "40"
    process = start([*arguments, "--ray", "local"], log)
    root = tmp_path / "out"
    wait_for(lambda: list(root.rglob("metrics.jsonl")))
    os.kill(wait_for(ray_run), signal.SIGKILL)
    wait_for(lambda: "its process died (1 of 3 times)" in log.read_text())
    assert process.wait(300) == 0, log.read_text()
    assert "3 of 3 runs done, 0 failed" in log.read_text()
    assert "Traceback" not in log.read_text()
    alone = [word.replace(str(root), str(tmp_path / "alone")) for word in arguments]
    assert main(alone) == 0
    same_runs(root, tmp_path / "alone")
    assert not list(root.rglob("*.ray"))


def test_an_address_without_a_cluster_is_one_line(sweep, capsys):
    assert main([*sweep(GRID), "--ray", "127.0.0.1:1"]) == 1
    assert "there is no Ray cluster at '127.0.0.1:1'" in capsys.readouterr().err


# --- sharing


FEW = ["DATA.CROPSIZE", "16", "DATA.PERCENTAGE", "0.2", "DATA.TRAIN_SPLIT", "train", "DATA.NO_TEST", "True"]


def one_run(path: Path, pairs: list[str], shared: Shared | None = None, save_seconds: float = 0.0) -> tuple[dict, dict]:
    cfg = load_cfg(DIGITS, [*QUICK[2:], "SOLVER.TOTAL_EPOCH", "1", *FEW, *pairs])
    result = run(cfg, RunFolder(path), shared=shared, save_seconds=save_seconds)
    return result, load_file(path / "tuned.safetensors")


@pytest.mark.parametrize("methods", ["linear", "lora+vqt"])
def test_a_run_that_shares_is_the_run_alone(tmp_path, methods):
    shared = Shared()
    for number, (lr, seed) in enumerate([("0.01", "1"), ("0.02", "1")]):
        pairs = ["MODEL.TRANSFER_TYPE", methods, "SOLVER.BASE_LR", lr, "SEED", seed]
        ours, weights = one_run(tmp_path / f"shared{number}", pairs, shared, save_seconds=60)
        alone, expected = one_run(tmp_path / f"alone{number}", pairs)
        assert (ours["val"], ours["train_loss"]) == (alone["val"], alone["train_loss"])
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[k], expected[k]) for k in weights)


def test_what_is_compiled_is_compiled_once(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda network, **settings: made.append(network) or network)
    monkeypatch.setattr("src.engine.step.has_vector_code", lambda: True)
    shared = Shared()
    for number, seed in enumerate("121"):
        pairs = ["MODEL.TRANSFER_TYPE", "partial-1", "SEED", seed]
        _ours, weights = one_run(tmp_path / f"shared{number}", [*pairs, "MODEL.COMPILE", "True"], shared)
        assert len(made) == 1
        _, expected = one_run(tmp_path / f"alone{number}", pairs)
        assert all(torch.equal(weights[k], expected[k]) for k in weights)
