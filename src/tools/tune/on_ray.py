"""A sweep on a Ray cluster: Ray Tune places runs, assigns GPUs or fractions of them, and restarts lost runs.

All machines must see the folders under the same paths: as always, they are the sweep's state.
"""

import logging
import os
import shutil
import socket
from functools import cache
from pathlib import Path

import ray
from ray import tune
from ray.tune.search import Searcher

from ...engine.shared import Shared
from ...utils.io import WriteError
from ...utils.logging import setup_logging
from ...utils.signals import StopSignals
from .execute import TRIES, execute
from .ledger import Ledger
from .overview import Overview
from .plan import Run

REPOSITORY = Path(__file__).parents[3]


def on_ray(ledger: Ledger, address: str, cpus: float, gpus: float | None) -> None:
    """Run everything in ``ledger`` on a cluster.

    Args:
        address: "auto": the cluster of this machine; "local": a new one on this machine; or "host:port".
        cpus, gpus: per run; 0.25 GPUs: four runs share one. None: one, if there are any.

    Raises:
        ConnectionError: there is no such cluster, or it is too small for one run.
    """
    _connect(address)
    storage = ledger.file.with_suffix(".ray").absolute()
    try:
        have = ray.cluster_resources()
        gpus = min(1.0, have.get("GPU", 0.0)) if gpus is None else gpus
        places = _places(have, cpus, gpus)
        with StopSignals(), Overview(ledger, places) as overview:  # replaces Ray's own handlers
            hand = _Hand(ledger, overview)
            tune.Tuner(
                tune.with_resources(_trial, {"cpu": cpus, "gpu": gpus}),
                tune_config=tune.TuneConfig(search_alg=hand, num_samples=-1, reuse_actors=True),
                run_config=tune.RunConfig(
                    name="runs",
                    storage_path=str(storage),
                    verbose=0,
                    callbacks=[_Recoveries(hand)],
                    failure_config=tune.FailureConfig(max_failures=TRIES - 1),
                ),
            ).fit()
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)  # Tune's own state; ours is in the run folders


def _connect(address: str) -> None:
    # Keep Tune from changing folders, signals and the terminal.
    os.environ |= {"RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    host, _, port = address.rpartition(":")
    environment = {"PYTHONPATH": str(REPOSITORY), "TQDM_DISABLE": "1"}
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        if port.isdigit() and "/" not in host:  # Ray itself would retry for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it logs a traceback for every restarted run
        ray.init(address, runtime_env={"env_vars": environment}, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ConnectionError(f"there is no Ray cluster at {address!r}: {error}") from error


def _places(have: dict[str, float], cpus: float, gpus: float) -> int:
    """How many runs fit in the cluster at the same time."""
    fits = [int(have.get(name, 0.0) / need) for name, need in (("CPU", cpus), ("GPU", gpus)) if need]
    if min(fits, default=1) < 1:
        raise ConnectionError(
            f"the cluster has {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs, but one run needs "
            f"{cpus:g} and {gpus:g}: change --cpus-per-run or --gpus-per-run"
        )
    return min(fits, default=1)


class _Hand(Searcher):
    """Gives Tune the next run whenever it has room, and records how each ended."""

    def __init__(self, ledger: Ledger, overview: Overview):
        super().__init__()
        self.ledger = ledger
        self.overview = overview
        self.runs: dict[str, Run] = {}

    def suggest(self, trial_id: str) -> dict | str | None:
        run = self.ledger.next()
        if run is None:
            return None if any(not run.over for run in self.runs.values()) else Searcher.FINISHED
        self.runs[trial_id] = run
        self.overview.started(run)
        return {"job": self.ledger.job(run), "folder": os.getcwd()}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        run = self.runs[trial_id]
        if result and result.get("busy"):
            self.ledger.again(run, later=True)
            return
        failure = f"its process died {TRIES} times" if error or result is None else result["failure"]
        self.overview.ended(run, self.ledger.ended(run, failure))

    def lost(self, trial_id: str) -> None:
        """Log that Tune restarts a run."""
        run = self.runs[trial_id]
        run.lost += 1
        self.overview.again(run, f"its process died ({run.lost} of {TRIES} times)")

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the folders are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do: a new ledger reads the folders."""

    def __deepcopy__(self, memo: dict) -> "_Hand":
        return self  # Tune copies its settings, but there is one ledger

    def __reduce__(self) -> tuple:
        return Searcher, ()  # Tune pickles its settings in order to resume; we resume from the folders


class _Recoveries(tune.Callback):
    """Reports runs whose process died."""

    def __init__(self, hand: _Hand):
        self.hand = hand

    def on_trial_recover(self, iteration: int, trials: list, trial, **info) -> None:
        self.hand.lost(trial.trial_id)

    def __reduce__(self) -> tuple:
        return tune.Callback, ()  # as above


def _trial(config: dict) -> None:
    """One run, in a process on the cluster."""
    try:
        os.chdir(config["folder"])
    except OSError as error:
        raise WriteError(f"{config['folder']} is not on {os.uname().nodename}: all machines must see it") from error
    outcome = execute(config["job"], _shared())
    tune.report({"failure": outcome.failure, "busy": outcome.busy})


@cache
def _shared() -> Shared:
    """State shared by the runs of this process, which come one after another."""
    setup_logging(terminal=False)
    return Shared()
