"""Try every tool for finished runs on the digits: forgetting, shifts, WiSE, agreement, pictures.

    vitune studies
    vitune studies OUTPUT_DIR demo-runs

Tunes the demo's backbone, which was pre-trained on letters, on the digits with four methods and
two seeds. Then it calls one tool after another: does the model still know letters, how does it
do on noisy, rotated and inverted digits, what lies between the pre-trained and the tuned weights,
do methods make the same mistakes, what do filters and attention look like. All results go to
OUTPUT_DIR/digits/studies. Finished runs are not repeated.
"""

import argparse
import sys

from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    command.add_settings(parser, "those of all runs")


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("studies", __doc__, add_options, work, argv, goes_on=command.GOES_ON)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
