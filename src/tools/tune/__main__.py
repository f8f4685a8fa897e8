"""Run a sweep: many runs from one file, hyper-parameters chosen on validation images, then tested once.

    vitune tune sweeps/digits --dry-run
    vitune tune sweeps/digits --workers 2
    vitune tune sweeps/digits SWEEP.SEEDS "[1, 2]" OUTPUT_DIR elsewhere
    vitune tune sweeps/vpt_linear --ray auto --gpus-per-run 0.5

The page Sweeps of the documentation explains the section SWEEP of such a file. The same command
again does what is missing: finished runs are not repeated, interrupted ones are resumed, failed ones
are tried again. For tables: vitune report OUTPUT_DIR

Exit status: 0 if every run has a result; 1 if some failed; 2 for a problem with the sweep; 75 if
SIGTERM, SIGINT or SIGUSR1 stopped it.
"""

import argparse
import sys

from ...configs.files import ConfigError
from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    command.add_config(parser, "a file with settings and SWEEP")
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


def work(args: argparse.Namespace) -> int | None:
    if not args.config_file:
        raise ConfigError("which sweep? Give a YAML file with a section SWEEP, or the name of a shipped one")
    if args.workers < 0 or args.cpus_per_run <= 0 or (args.gpus_per_run or 0) < 0:
        raise ConfigError("--workers and --gpus-per-run must not be below 0, --cpus-per-run must be above")
    if args.workers and args.ray:
        raise ConfigError("--workers is for this machine, --ray for a cluster: choose one")
    from .plan import Plan  # here, and the work after it: what is wrong with a sweep shows before torch is loaded
    from .spec import load_sweep

    plan = Plan(load_sweep(args.config_file, args.opts))
    from .work import perform

    return perform(plan, args)


def main(argv: list[str]) -> int:
    return command.run("tune", __doc__, add_options, work, argv, goes_on=command.GOES_ON, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
