"""The demo's questions beyond accuracy, on the digits: forgetting, shifts, weight-space ensembles, agreement, pictures.

    vitune studies                    the same as    bash run.sh studies

Tunes the demo's backbone, which knows letters, on the digits in four ways with two seeds each, then asks every tool in
turn what became of it: is it still good at letters, what if digits are noisy, turned or inverted, what lies between the
pre-trained and the tuned model, do methods make the same mistakes, what do filters and attention look at. Everything is
in OUTPUT_DIR/digits/studies, with the command of every tool in its JSON file. Finished runs are not repeated.
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
