"""Executing one run of a sweep in this process, whether it came from this process, a worker pool or Ray."""

import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from ...configs.config import Setting, load_settings
from ...engine.results import RunFolder
from ...engine.run import run
from ...engine.shared import Shared
from ...engine.trainer import NonFiniteLoss
from ...utils.io import InUse, read_json_lines, write_json
from ...utils.signals import StoppedEarly

# A run of a sweep may lose this many seconds of work: with epochs of milliseconds, saving would take most of the time.
SAVE_SECONDS = 2.0
BUSY_SECONDS = 2.0  # wait before retrying a run that another process is doing
TRIES = 3  # give up a run after this many processes died over it


@dataclass(frozen=True)
class Job:
    """A run as passed to a process.

    Attributes:
        record: the content of its sweep.json.
        rungs: epochs after which it stops unless it is among the best 1 / ``factor`` of ``rivals``.
    """

    settings: list[Setting]
    folder: Path
    record: dict
    rungs: list[int] = field(default_factory=list)
    factor: int = 3
    rivals: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        failure: why there is no result; "" if there is one or the folder says why not.
        unexpected: the state of the process is unknown.
        busy: another process, perhaps of another sweep, is doing this run.
    """

    failure: str = ""
    unexpected: bool = False
    busy: bool = False


def execute(job: Job, shared: Shared) -> Outcome:
    """Do or resume the run; errors are in the outcome and in its log.txt.

    Raises:
        Interrupted: as ``run``.
    """
    folder, start = RunFolder(job.folder), time.perf_counter()
    try:
        write_json(folder.sweep, job.record)
        cfg = load_settings(job.settings, [], quiet=True)
        seconds = 0.0 if job.rungs else SAVE_SECONDS  # rivals read what is written
        run(cfg, folder, resume=True, shared=shared, watch=lambda rows: _watch(job, rows), save_seconds=seconds)
    except StoppedEarly:
        row = read_json_lines(folder.metrics)[-1]
        _end(folder, {"epoch": row["epoch"], "val": row["val_top1"], "seconds": time.perf_counter() - start})
    except NonFiniteLoss as error:  # it would diverge again
        _end(folder, {"diverged": str(error), "seconds": time.perf_counter() - start})
    except InUse:
        time.sleep(BUSY_SECONDS)
        return Outcome(busy=True)
    except (ValueError, OSError) as error:  # the message says what to do
        return Outcome(str(error))
    except Exception as error:  # any error: the other runs continue
        with open(folder.log, "a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        return Outcome(f"{type(error).__name__}: {error}, see {folder.log}", unexpected=True)
    return Outcome()


def _end(folder: RunFolder, about: dict) -> None:
    """Mark a run as ended without a result."""
    write_json(folder.stopped, about)
    folder.last.unlink(missing_ok=True)


def _watch(job: Job, rows: list[dict]) -> None:
    """asha's rule (Li et al., 2020, arXiv:1810.05934), using what the rivals' folders hold at a rung."""
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
