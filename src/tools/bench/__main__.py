"""Measure speed on this machine. Contenders take turns; tables show medians over rounds, and ratios.

    vitune bench step --batch 8 --rounds 5
    vitune bench step --help

Writes OUT/<what>.json with the figures of every round, OUT/<what>.md (the table that is printed)
and OUT/<what>.png. Weights are random, so nothing is downloaded. `vitune bench gpu` does everything at once.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from ...utils.paths import given_path
from .. import command
from . import packages
from .options import BENCHMARKS


def add_options(parser: argparse.ArgumentParser) -> None:
    """One sub-command for each benchmark."""
    choices = parser.add_subparsers(dest="what", required=True, metavar="{" + ",".join(BENCHMARKS) + "}")
    for what, benchmark in BENCHMARKS.items():
        add_options_of(
            what,
            choices.add_parser(
                what,
                help=benchmark.text.splitlines()[0],
                description=benchmark.text,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            ),
        )


def add_options_of(what: str, parser: argparse.ArgumentParser) -> None:
    BENCHMARKS[what].add_options(parser)
    parser.add_argument(
        "--out", type=given_path, default=Path("output/bench"), help="folder for the files (default: %(default)s)"
    )
    parser.add_argument(
        "--packages",
        type=given_path,
        metavar="DIR",
        help="a folder of wheels of packages that this machine lacks, for machines without a network",
    )


def work(what: str, args: argparse.Namespace) -> int | None:
    packages.use(args.packages)
    from .work import perform  # here: torch takes seconds to load

    return perform(what, args)


def main(argv: list[str]) -> int:
    if argv and argv[0] in BENCHMARKS:
        what = argv[0]
        return command.run(
            f"bench {what}", BENCHMARKS[what].text, partial(add_options_of, what), partial(work, what), argv[1:]
        )
    command.make_parser("bench", __doc__, add_options).parse_args(argv[:1])  # ends with help, or the choices
    raise AssertionError("a benchmark without a name was accepted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
