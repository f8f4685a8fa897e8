"""A sweep: many runs from one file, tuned on validation images, tested once. Interrupted, it goes on where it was.

    python -m src.tools.tune --config-file configs/sweeps/digits.yaml --dry-run
    python -m src.tools.tune --config-file configs/sweeps/digits.yaml --workers 2
    python -m src.tools.tune --config-file configs/sweeps/digits.yaml SWEEP.SEEDS "[1, 2]" OUTPUT_DIR elsewhere
    python -m src.tools.tune --config-file configs/sweeps/vpt_linear.yaml --ray auto --gpus-per-run 0.5

What the section SWEEP of a file may say is in the documentation (Sweeps). The same command again does what is missing:
what is finished is not repeated, what was interrupted goes on, what failed is tried again. Tables: python -m
src.tools.report OUTPUT_DIR

Exit status: 0 when every run has its result; 1 when some failed; 2 for a sweep with problems; 75 when SIGTERM, SIGINT
or SIGUSR1 asked it to stop.
"""

import argparse
import logging
import shlex
import sys

from ...configs.config import ConfigError
from ...utils.logging import setup_logging
from ...utils.progress import tqdm
from ...utils.signals import stoppable
from ...utils.text import put_out
from .estimate import measure
from .execute import TRIES
from .ledger import Ledger
from .overview import Overview, seconds_left
from .plan import Plan
from .pools import SameProcess, Workers
from .spec import load_sweep

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


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML file with settings and SWEEP")
    parser.add_argument("--dry-run", action="store_true", help="print the runs, their number and the time they take")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="do N runs at a time, in N processes")
    parser.add_argument(
        "--ray", default="", metavar="ADDRESS", help="do the runs on a Ray cluster: auto, local, HOST:PORT"
    )
    parser.add_argument("--cpus-per-run", type=float, default=1, metavar="N", help="on Ray (default: 1)")
    parser.add_argument(
        "--gpus-per-run", type=float, metavar="N", help="on Ray; 0.5: two share one (default: 1, if any)"
    )
    parser.add_argument("--without-failed", action="store_true", help="choose also where some tuning runs failed")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the file's")
    args = parser.parse_intermixed_args(argv)
    if args.workers < 0 or args.cpus_per_run <= 0 or (args.gpus_per_run or 0) < 0:
        parser.error("--workers and --gpus-per-run must not be below 0, --cpus-per-run must be above")
    if args.workers and args.ray:
        parser.error("--workers is for this machine, --ray for a cluster: choose one")
    return args


def main(argv: list[str]) -> int:
    return stoppable(lambda: _main(parse_args(argv)))


def _main(args: argparse.Namespace) -> int:
    setup_logging(only=__package__.rpartition(".")[0])  # of all tools, whatever the package is called
    try:
        plan = Plan(load_sweep(args.config_file, args.opts))
        command = shlex.join(["python", "-m", "src.tools.tune", "--config-file", args.config_file, *args.opts])
        ledger = Ledger(plan, command, args.without_failed)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.dry_run:
        return put_out(preview(ledger, max(1, args.workers)))
    try:
        ledger.write()
        if args.ray:
            from .on_ray import on_ray  # here: few have Ray installed

            on_ray(ledger, args.ray, args.cpus_per_run, args.gpus_per_run)
        else:
            on_this_machine(ledger, args.workers)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        print("error: --ray needs Ray: pip install 'vitune[ray]'", file=sys.stderr)
        return 2
    except OSError as error:  # no room, no right to write, no cluster
        print(f"error: {error}", file=sys.stderr)
        return 1
    return finish(ledger)


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
