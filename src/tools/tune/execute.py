"""One run of a sweep in this process, whoever hands it out: this process, a worker, or Ray."""

import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from ...configs.config import Setting, load_settings
from ...engine.results import RunFolder
from ...engine.run import run
from ...engine.shared import Shared, StoppedEarly
from ...engine.trainer import NonFiniteLoss
from ...utils.io import InUse, read_json_lines, write_json

# Runs of a sweep may lose so many seconds of work: with epochs of a few milliseconds, most time would go into saving.
SAVE_SECONDS = 2.0
BUSY_SECONDS = 2.0  # before a run that another process is at is looked at again
TRIES = 3  # a run over which so many processes died is given up


@dataclass(frozen=True)
class Job:
    """A run as it is handed to a process.

    Attributes:
        record: for its sweep.json.
        rungs: epochs after which it ends early, unless it is among the best 1 / ``factor`` of ``rivals``.
    """

    settings: list[Setting]
    folder: Path
    record: dict
    rungs: list[int] = field(default_factory=list)
    factor: int = 3
    rivals: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        failure: why there is no result; "" where there is one, or where the folder says why not.
        unexpected: nobody knows what state the process is in.
        busy: another process, another sweep perhaps, is at this very run.
    """

    failure: str = ""
    unexpected: bool = False
    busy: bool = False


def execute(job: Job, shared: Shared) -> Outcome:
    """Do the run, or go on with it; whatever goes wrong with it is in the outcome and in its log.txt.

    Raises:
        Interrupted: as ``run``.
    """
    folder, start = RunFolder(job.folder), time.perf_counter()
    try:
        write_json(folder.sweep, job.record)
        shared.watch = lambda rows: _watch(job, rows)
        shared.save_seconds = 0.0 if job.rungs else SAVE_SECONDS  # rivals look at what is written
        run(load_settings(job.settings, [], quiet=True), folder, resume=True, shared=shared)
    except StoppedEarly:
        row = read_json_lines(folder.metrics)[-1]
        _end(folder, {"epoch": row["epoch"], "val": row["val_top1"], "seconds": time.perf_counter() - start})
    except NonFiniteLoss as error:  # as it would be the next time
        _end(folder, {"diverged": str(error), "seconds": time.perf_counter() - start})
    except InUse:
        time.sleep(BUSY_SECONDS)
        return Outcome(busy=True)
    except (ValueError, OSError) as error:  # their messages say what to do
        return Outcome(str(error))
    except Exception as error:  # whatever it is, the other runs go on
        with open(folder.log, "a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        return Outcome(f"{type(error).__name__}: {error}, see {folder.log}", unexpected=True)
    return Outcome()


def _end(folder: RunFolder, about: dict) -> None:
    """End a run for good before it has a result."""
    write_json(folder.stopped, about)
    folder.last.unlink(missing_ok=True)


def _watch(job: Job, rows: list[dict]) -> None:
    """asha's rule (Li et al., 2020, arXiv:1810.05934), with what the rivals' folders hold when a rung is reached."""
    epoch = rows[-1]["epoch"]
    if epoch not in job.rungs:
        return
    own, others = rows[-1]["val_top1"], []
    for rival in job.rivals:
        metrics = RunFolder(rival).metrics
        if rival != job.folder and metrics.is_file():
            others += [row["val_top1"] for row in read_json_lines(metrics) if row["epoch"] == epoch]
    better, allowed = sum(other > own for other in others), -(-(len(others) + 1) // job.factor)
    if better >= allowed:
        raise StoppedEarly(f"{better} of {len(others)} others were better after epoch {epoch}")
