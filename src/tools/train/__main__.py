"""Train and test one run; resume an interrupted run; test a finished run again.

    vitune train digits MODEL.TRANSFER_TYPE lora FREQFIT freqfit SEED 44
    vitune train digits MODEL.TRANSFER_TYPE lora FREQFIT freqfit SEED 44 --resume
    vitune train my.yaml DATA.DATAPATH photos
    vitune train --run-dir output/digits/... --eval-only
    torchrun --nproc_per_node 4 -m vitune train digits MODEL.TRANSFER_TYPE lora

Exit status: 0 if the result was written (the last line shows it); 2 for a problem with the config;
75 if SIGTERM, SIGINT or SIGUSR1 stopped the run, and the same command with --resume goes on; 1 for
any other error.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    command.add_config(parser)
    parser.add_argument(
        "--run-dir", type=given_path, metavar="DIR", help="the run's folder (default: named by the config)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run; print a finished one")
    parser.add_argument("--eval-only", action="store_true", help="test a finished run's weights again")
    parser.add_argument("--list-methods", action="store_true", help="as vitune list methods")
    parser.add_argument("--list-backbones", action="store_true", help="as vitune list backbones")
    parser.add_argument("--list-tasks", action="store_true", help="as vitune list tasks")
    parser.add_argument("--train-type", default="", help=argparse.SUPPRESS)  # VPT's command lines have it


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run(
        "train",
        __doc__,
        add_options,
        work,
        argv,
        goes_on="run the same command with --resume to continue",
        stderr=lambda args: args.list_methods or args.list_backbones or args.list_tasks,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
