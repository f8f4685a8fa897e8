"""What ``vitune tune`` does: keep every worker busy until no run of the sweep is left."""

import argparse
import logging
import shlex
import sys

from ...configs.config import ConfigError
from ...utils.logging import setup_logging
from ...utils.progress import tqdm
from ...utils.text import put_out
from .estimate import measure
from .execute import TRIES
from .ledger import Ledger
from .overview import Overview, seconds_left
from .plan import Plan
from .pools import SameProcess, Workers

logger = logging.getLogger(__name__)


def drive(ledger: Ledger, pool: SameProcess | Workers, overview: Overview) -> None:
    """Keep every place of ``pool`` at work until no run is left."""
    while True:
        for place in pool.places:
            if place.run is None and (run := ledger.next(place.alike)):
                place.start(run, ledger.job(run))
                overview.started(run)
        if all(place.run is None for place in pool.places):
            return
        for run, outcome in pool.wait():
            run.lost += outcome is None
            if outcome is None and run.lost < TRIES:
                ledger.again(run)
                overview.again(run, f"its process died ({run.lost} of {TRIES} times)")
                continue
            if outcome and outcome.busy:
                ledger.again(run, later=True)
                continue
            failure = outcome.failure if outcome else f"its process died {run.lost} times"
            overview.ended(run, ledger.ended(run, failure))


def perform(plan: Plan, args: argparse.Namespace) -> int:
    """Do the sweep, or show what it would do; the exit status."""
    setup_logging(only=__package__.rpartition(".")[0])  # of all tools, whatever the package is called
    command = shlex.join(["vitune", "tune", args.config_file, *args.opts])
    ledger = Ledger(plan, command, args.without_failed)
    if args.dry_run:
        return put_out(preview(ledger, max(1, args.workers)))
    ledger.write()
    if args.ray:
        on_a_cluster(ledger, args)
    else:
        on_this_machine(ledger, args.workers)
    return finish(ledger)


def on_a_cluster(ledger: Ledger, args: argparse.Namespace) -> None:
    try:
        from .on_ray import on_ray  # here: few have Ray installed

        on_ray(ledger, args.ray, args.cpus_per_run, args.gpus_per_run)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError("--ray needs Ray, which is not installed: pip install 'vitune[ray]'") from error


def on_this_machine(ledger: Ledger, workers: int) -> None:
    pool = Workers(workers) if workers else SameProcess()
    try:
        with Overview(ledger, len(pool.places)) as overview:
            drive(ledger, pool, overview)
    finally:
        pool.stop()


def preview(ledger: Ledger, places: int) -> str:
    """What would be run, and how long that would take."""
    lines, runs = [], ledger.plan.runs
    for cell in ledger.plan.cells:
        lines.append(str(cell))
        lines += [f"  {run.state:<8} {run.stage:<5}  {run.label}" for run in (*cell.tuning, *cell.finals)]
    tuning, left = sum(run.stage == "tune" for run in runs), sum(not run.over for run in runs)
    lines.append(f"{len(runs)} runs: {tuning} to choose, {len(runs) - tuning} to be tested; {left} are left")
    if left:
        unknown = [] if seconds_left(runs, places) else measure(ledger.plan)
        lines += [f"time unknown of {kind}" for kind in unknown]
        seconds = seconds_left(runs, places)
        at_once = f", {places} at a time" if places > 1 else ""
        lines.append(f"estimated time: {tqdm.format_interval(seconds) if seconds else 'unknown'}{at_once}")
    return "\n".join(lines)


def finish(ledger: Ledger) -> int:
    """Print what came of it; the exit status."""
    runs = ledger.plan.runs
    failed = [run for run in runs if run.state == "failed"]
    for cell in ledger.plan.cells:
        if cell.reason:
            print(f"nothing chosen for {cell}: {cell.reason}", file=sys.stderr)
    for run in failed:
        print(f"failed: {run}: {run.reason}", file=sys.stderr)
    print(f"{sum(run.state == 'done' for run in runs)} of {len(runs)} runs done, {len(failed)} failed")
    return 1 if failed or any(cell.reason for cell in ledger.plan.cells) else 0
