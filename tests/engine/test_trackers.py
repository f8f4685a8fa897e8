"""Trackers: what they are told, that a run which goes on is told once, and that none of them can stop a run."""

import importlib
import logging
import os
import signal
import sys
from types import ModuleType, SimpleNamespace

import pytest
from runs import QUICK
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.configs.config import load_cfg
from src.engine import trackers, trainer
from src.engine.results import RunFolder, run_folder
from src.engine.run import run
from src.utils import distributed
from src.utils.io import read_json, read_json_lines
from src.utils.signals import Interrupted, StoppedEarly

SETTINGS = [*QUICK, "MODEL.TRANSFER_TYPE", "linear", "DATA.BATCH_SIZE", "50"]


class FakeWandb(ModuleType):
    """Keeps what is sent: ``started`` calls of init, the ``rows`` of each id, summaries and exit codes."""

    def __init__(self, fail_in: int = 0):
        super().__init__("wandb")
        self.started, self.rows, self.summaries, self.ended, self.fail_in = [], {}, {}, [], fail_in

    Settings = staticmethod(lambda **settings: settings)

    def init(self, **arguments):
        self.started.append(arguments)
        rows, summary = self.rows.setdefault(arguments["id"], []), self.summaries.setdefault(arguments["id"], {})

        def log(row, step):
            if step == self.fail_in:
                raise ConnectionError("the network is gone")
            rows.append((step, row))

        return SimpleNamespace(log=log, summary=summary, finish=lambda exit_code: self.ended.append(exit_code))


class FakeMlflow(ModuleType):
    """A tracking server in memory: ``runs`` by id, each with its status, parameters and metrics."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.experiments, self.uris = {}, {}, []
        self.entities = SimpleNamespace(
            Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
            Param=lambda key, value: (key, value),
        )

    def MlflowClient(self, tracking_uri):
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name):
        return self.experiments.setdefault(name, f"experiment {name}")

    def create_run(self, experiment, run_name):
        name = f"run {len(self.runs)}"
        self.runs[name] = dict(experiment=experiment, name=run_name, status=["RUNNING"], params=[], metrics=[])
        return SimpleNamespace(info=SimpleNamespace(run_id=name))

    def update_run(self, name, status):
        self.runs[name]["status"].append(status)

    set_terminated = update_run

    def log_batch(self, name, metrics=(), params=()):
        assert len(params) <= 100
        self.runs[name]["metrics"] += metrics
        self.runs[name]["params"] += params

    def get_metric_history(self, name, key):
        return [metric for metric in self.runs[name]["metrics"] if metric.key == key]


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def run_in_parts(folder: RunFolder, monkeypatch, *settings: str, interrupted_in: int = 3) -> dict:
    """A run that is stopped in a step, and gone on with: 2 steps an epoch."""
    honest, count = trainer.TrainingStep.__call__, iter(range(10**6))

    def step(self, *args):
        if next(count) == interrupted_in:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, *args)

    monkeypatch.setattr(trainer.TrainingStep, "__call__", step)
    cfg = load_cfg("", [*SETTINGS, *settings])
    with pytest.raises(Interrupted):
        run(cfg, folder)
    return run(cfg, folder, resume=True)


def test_wandb_is_told_every_epoch_once_and_the_result(tmp_path, monkeypatch, wandb):
    folder = RunFolder(tmp_path / "run")
    result = run_in_parts(folder, monkeypatch, "WANDB", "vitune")
    first, second = wandb.started
    assert first["id"] == second["id"] == read_json(folder.trackers)["wandb"]["id"]
    assert (second["project"], second["resume"]) == ("vitune", "allow")
    assert second["config"]["MODEL.TRANSFER_TYPE"] == "linear"
    assert wandb.rows[first["id"]] == [(row["epoch"], row) for row in read_json_lines(folder.metrics)]
    summary = wandb.summaries[first["id"]]
    assert summary["test/top1"] == result["test"]["top1"]
    assert summary["parameters/trained"] == result["parameters"]["trained"]
    assert wandb.ended == [1, 0]


def test_mlflow_is_told_every_epoch_once_and_the_result(tmp_path, monkeypatch, mlflow):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "peft")
    folder = RunFolder(tmp_path / "run")
    result = run_in_parts(folder, monkeypatch, "MLFLOW", "http://host:5000")
    ((name, told),) = mlflow.runs.items()
    assert read_json(folder.trackers)["mlflow"]["id"] == name
    assert (told["experiment"], set(mlflow.uris)) == ("experiment peft", {"http://host:5000"})
    assert told["status"] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    losses = [(metric.step, metric.value) for metric in told["metrics"] if metric.key == "loss"]
    assert losses == [(row["epoch"], row["loss"]) for row in read_json_lines(folder.metrics)]
    assert [m.value for m in told["metrics"] if m.key == "test/top1"] == [result["test"]["top1"]]
    assert dict(told["params"])["SOLVER.TOTAL_EPOCH"] == "3"
    assert len(dict(told["params"])) == len(told["params"])


def test_tensorboard_has_every_epoch_once_and_the_result(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    result = run_in_parts(folder, monkeypatch)
    events = EventAccumulator(str(folder.path)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(row["epoch"], pytest.approx(row["loss"])) for row in read_json_lines(folder.metrics)]
    assert [event.value for event in events.Scalars("test/top1")] == [pytest.approx(result["test"]["top1"])]
    assert not folder.trackers.exists()


def test_what_was_not_heard_is_told_when_the_run_goes_on(tmp_path, monkeypatch, wandb):
    """The network is gone in epoch 1, and there again after the interruption."""
    wandb.fail_in = 1
    honest = wandb.init

    def init(**arguments):
        wandb.fail_in = 1 if not wandb.started else 0
        return honest(**arguments)

    wandb.init = init
    folder = RunFolder(tmp_path / "run")
    run_in_parts(folder, monkeypatch, "WANDB", "vitune")
    (rows,) = wandb.rows.values()
    assert [step for step, _ in rows] == [1, 2, 3]


def test_a_tracker_that_fails_is_warned_of_once_and_the_run_goes_on(tmp_path, caplog, wandb):
    wandb.fail_in = 2
    with caplog.at_level(logging.WARNING):
        result = run(load_cfg("", [*SETTINGS, "WANDB", "vitune"]), RunFolder(tmp_path / "run"))
    assert result["epochs"] == 3
    said = [record.message for record in caplog.records if "logging to" in record.message]
    reason = "ConnectionError: the network is gone"
    assert said == [f"note: logging to WeightsAndBiases stopped ({reason}); the run continues"]
    (rows,) = wandb.rows.values()
    assert [step for step, _ in rows] == [1]


def test_how_a_run_ended_is_told(tmp_path, mlflow):
    def watch(rows):
        raise StoppedEarly("seen enough")

    cfg = load_cfg("", [*SETTINGS, "MLFLOW", "sqlite:///runs.db"])
    with pytest.raises(StoppedEarly):
        run(cfg, RunFolder(tmp_path / "stopped"), watch=watch)
    with pytest.raises(FloatingPointError):
        run(load_cfg("", [*SETTINGS, "MLFLOW", "x", "SOLVER.BASE_LR", "1e30"]), RunFolder(tmp_path / "diverged"))
    assert [told["status"][-1] for told in mlflow.runs.values()] == ["KILLED", "FAILED"]
    assert set(mlflow.experiments) == {"vitune"}


def test_what_is_not_installed_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for key, module in (("WANDB", "wandb"), ("MLFLOW", "mlflow")):
        monkeypatch.delitem(sys.modules, module, raising=False)
        cfg = load_cfg("", [*SETTINGS, key, "here", "DATA.NAME", "cifar100", "DATA.DATAPATH", "not/there"])
        with pytest.raises(ValueError, match=f"{key} 'here' needs the package {module}: pip install {module}"):
            run(cfg, RunFolder(tmp_path / key))
        assert not (tmp_path / key).exists()


def test_of_several_processes_one_tells(tmp_path, monkeypatch, wandb):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with trackers.tracking(load_cfg("", [*SETTINGS, "WANDB", "vitune"]), RunFolder(tmp_path)) as told:
        told.begin([{"epoch": 1, "loss": 1.0}])
        told.epoch({"epoch": 2, "loss": 1.0})
    assert not wandb.started
    assert not list(tmp_path.iterdir())


def test_tracking_is_not_part_of_the_experiment():
    plain = run_folder(load_cfg("", SETTINGS))
    assert plain == run_folder(load_cfg("", [*SETTINGS, "WANDB", "a", "MLFLOW", "b"]))


def real(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed: pip install {name}")


@pytest.mark.filterwarnings("ignore")
def test_the_real_mlflow_has_every_epoch_once(tmp_path, monkeypatch):
    mlflow = real("mlflow")
    real("sqlalchemy")
    uri, folder = f"sqlite:///{tmp_path}/mlflow.db", RunFolder(tmp_path / "run")
    result = run_in_parts(folder, monkeypatch, "MLFLOW", uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (told,) = client.search_runs([client.get_experiment_by_name("vitune").experiment_id])
    assert told.info.status == "FINISHED"
    assert told.data.metrics["test/top1"] == pytest.approx(result["test"]["top1"])
    history = client.get_metric_history(told.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_writes_a_run_offline(tmp_path, monkeypatch):
    real("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = RunFolder(tmp_path / "run")
    run_in_parts(folder, monkeypatch, "WANDB", "vitune")
    name = read_json(folder.trackers)["wandb"]
    assert name["epochs"] == 3
    assert len(list(folder.path.glob(f"wandb/offline-run-*/run-{name['id']}.wandb"))) == 2  # before and after
