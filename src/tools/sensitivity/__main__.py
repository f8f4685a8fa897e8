"""Compute where SPT should spend its parameters for a task: allocations as files, and pictures of them.

    vitune sensitivity digits MODEL.TRANSFER_TYPE spt_lora --budgets "0.01 0.02"

Gradients are computed once; each budget (in millions of parameters; by default the config's BUDGET)
gets an allocation file for MODEL.SPT_LORA.ALLOCATION or MODEL.SPT_ADAPTER.ALLOCATION.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    command.add_config(parser)
    parser.add_argument("--budgets", default="", help="millions of parameters, separated by spaces")
    parser.add_argument(
        "--out", type=given_path, metavar="DIR", help="folder for the files (default: OUTPUT_DIR/sensitivity)"
    )


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("sensitivity", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
