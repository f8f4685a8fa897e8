"""Experiment trackers: TensorBoard always, Weights & Biases and MLflow if configured and installed.

A resumed run continues its tracker runs: ``trackers.json`` in its folder holds their ids. If a tracker fails, for
example because the network is down, ViTune warns once and keeps training. Only rank 0 logs.
"""

import importlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from numbers import Real
from uuid import uuid4

from fvcore.common.config import CfgNode
from torch.utils.tensorboard import SummaryWriter

from ..configs.config import flatten
from ..utils import distributed
from ..utils.io import read_json, write_json
from ..utils.signals import Interrupted, StoppedEarly
from .results import RunFolder

logger = logging.getLogger(__name__)

EXPERIMENT = "vitune"  # in MLflow, unless MLFLOW_EXPERIMENT_NAME is set
AT_ONCE = 100  # the maximum number of parameters per call of MLflow


class TensorBoard:
    """Events in the run's folder; on resuming, events after the last finished epoch are purged."""

    def __init__(self, folder: RunFolder, done: int):
        self.writer = SummaryWriter(str(folder.path), purge_step=done + 1 if done else None)

    def epoch(self, row: dict) -> None:
        for name, value in _numbers(row).items():
            if name != "epoch":
                self.writer.add_scalar(name, value, row["epoch"])

    def end(self, result: dict) -> None:
        for name, value in summary_of(result).items():
            self.writer.add_scalar(name, value, result["epochs"])

    def close(self, status: str) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run in the project ``WANDB``; wandb's environment variables (WANDB_ENTITY, WANDB_MODE, ...) apply."""

    def __init__(self, cfg: CfgNode, folder: RunFolder):
        wandb = importlib.import_module("wandb")
        self.state = State(folder, "wandb")
        self.state.save(id=self.state.id or uuid4().hex[:16])
        self.run = wandb.init(
            project=cfg.WANDB,
            id=self.state.id,
            resume="allow",
            name=_name(folder),
            dir=str(folder.path),
            config=flatten(cfg),
            reinit="create_new",  # several runs in one process
            settings=wandb.Settings(silent=True, console="off"),
        )

    def epoch(self, row: dict) -> None:
        if row["epoch"] > self.state.epochs:
            self.run.log(_numbers(row), step=row["epoch"])
            self.state.save(epochs=row["epoch"])

    def end(self, result: dict) -> None:
        self.run.summary.update(summary_of(result))

    def close(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "FINISHED" else 1)


class MLflow:
    """A run at the tracking URI ``MLFLOW``, in the experiment MLFLOW_EXPERIMENT_NAME, or "vitune"."""

    def __init__(self, cfg: CfgNode, folder: RunFolder):
        mlflow = importlib.import_module("mlflow")
        self.entities = mlflow.entities
        self.client = mlflow.MlflowClient(tracking_uri=cfg.MLFLOW)
        self.state = State(folder, "mlflow")
        if self.state.id:
            self.client.update_run(self.state.id, status="RUNNING")
            history = self.client.get_metric_history(self.state.id, "loss")
            self.sent = max((metric.step for metric in history), default=0)
            return
        self.sent = 0
        run = self.client.create_run(self._experiment(), run_name=_name(folder))
        self.state.save(id=run.info.run_id)
        settings = [self.entities.Param(key, str(value)) for key, value in flatten(cfg).items()]
        for first in range(0, len(settings), AT_ONCE):
            self.client.log_batch(self.state.id, params=settings[first : first + AT_ONCE])

    def epoch(self, row: dict) -> None:
        if row["epoch"] > self.sent:
            self._log(_numbers(row), row["epoch"])
            self.sent = row["epoch"]

    def end(self, result: dict) -> None:
        self._log(summary_of(result), result["epochs"])

    def close(self, status: str) -> None:
        self.client.set_terminated(self.state.id, status)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [self.entities.Metric(name, value, now, step) for name, value in numbers.items()]
        self.client.log_batch(self.state.id, metrics=metrics)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        try:
            if (experiment := self.client.get_experiment_by_name(name)) is None:
                return self.client.create_experiment(name)
        except Exception:  # another run may have created it in the meantime
            if (experiment := self.client.get_experiment_by_name(name)) is None:
                raise
        return experiment.experiment_id


class State:
    """One service's entry in ``trackers.json``: the ``id`` of the run and the number of ``epochs`` logged."""

    def __init__(self, folder: RunFolder, service: str):
        self.path = folder.trackers
        self.service = service
        entry = self._all().get(service, {})
        self.id = entry.get("id", "")
        self.epochs = entry.get("epochs", 0)

    def save(self, **news) -> None:
        self.id = news.get("id", self.id)
        self.epochs = news.get("epochs", self.epochs)
        write_json(self.path, self._all() | {self.service: {"id": self.id, "epochs": self.epochs}})

    def _all(self) -> dict:
        return read_json(self.path) if self.path.is_file() else {}


# Config key -> its service and the module it needs.
SERVICES = {"WANDB": (WeightsAndBiases, "wandb"), "MLFLOW": (MLflow, "mlflow")}


class Trackers:
    """All of a run's trackers; see ``tracking``."""

    def __init__(self, cfg: CfgNode, folder: RunFolder):
        self.cfg = cfg
        self.folder = folder
        self._open: dict[str, TensorBoard | WeightsAndBiases | MLflow] = {}

    def begin(self, rows: list[dict]) -> None:
        """Open the trackers; those that lack earlier epochs get their ``rows``."""
        if not distributed.is_first():
            return
        makers = {"TensorBoard": lambda: TensorBoard(self.folder, len(rows))}
        for key, (service, _) in SERVICES.items():
            if self.cfg[key]:
                makers[service.__name__] = lambda service=service: service(self.cfg, self.folder)
        for name, make in makers.items():
            with self._forgiven(name):
                self._open[name] = make()
        for row in rows:
            self._send("epoch", row, but="TensorBoard")

    def epoch(self, row: dict) -> None:
        """A row of metrics.jsonl."""
        self._send("epoch", row)

    def end(self, result: dict) -> None:
        """A finished run's result."""
        self._send("end", result)

    def close(self, status: str) -> None:
        """``status``: FINISHED, FAILED or KILLED."""
        self._send("close", status)
        self._open.clear()

    def _send(self, what: str, content: dict | str, but: str = "") -> None:
        for name, tracker in list(self._open.items()):
            if name != but:
                with self._forgiven(name):
                    getattr(tracker, what)(content)

    @contextmanager
    def _forgiven(self, name: str) -> Iterator[None]:
        """An exception in a tracker closes the tracker, not the run."""
        try:
            yield
        except Exception as error:  # network, server, key, version: any error
            self._open.pop(name, None)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            logger.warning("note: logging to %s stopped (%s); the run continues", name, reason)


@contextmanager
def tracking(cfg: CfgNode, folder: RunFolder) -> Iterator[Trackers]:
    """The run's trackers: ``begin`` opens them; the end of the block closes them with the run's status."""
    trackers, status = Trackers(cfg, folder), "FAILED"
    try:
        yield trackers
        status = "FINISHED"
    except (Interrupted, StoppedEarly):
        status = "KILLED"
        raise
    finally:
        trackers.close(status)


def require_trackers(cfg: CfgNode) -> None:
    """Raise ValueError if a configured service is not installed."""
    for key, (_, module) in SERVICES.items():
        if cfg[key] and module not in sys.modules and find_spec(module) is None:
            raise ValueError(f"{key} {cfg[key]!r} needs the package {module}: pip install {module}, or leave {key} out")


def summary_of(result: dict) -> dict[str, float]:
    """The numbers of a result: {"test/top1": ..., "parameters/trained": ..., "seconds/train": ...}."""
    parts = {name: result[name] or {} for name in ("test", "val", "parameters")}
    parts |= {"seconds": result["cost"]["seconds"], "cost": result["cost"]}
    return {f"{part}/{name}": value for part, content in parts.items() for name, value in _numbers(content).items()}


def _numbers(content: dict) -> dict[str, float]:
    return {
        name: value
        for name, value in content.items()
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    }


def _name(folder: RunFolder) -> str:
    """The last four folders, which name data, backbone, methods and settings."""
    return "/".join(folder.path.absolute().parts[-4:])
