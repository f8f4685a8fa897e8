"""Fine-tune on real handwritten digits: linear probing, LoRA, and LoRA with FreqFit, three seeds each.

    vitune demo
    vitune demo OUTPUT_DIR demo-runs DEVICE cpu

The backbone, which comes with ViTune, was pre-trained on letters and symbols and has never seen a
digit. Prints a table and writes a plot to OUTPUT_DIR/digits/demo.png.
"""

import argparse
import sys

from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    command.add_config(parser, "by default digits")
    parser.add_argument("--seeds", default="42 44 82", help="separated by spaces (default: %(default)s)")


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("demo", __doc__, add_options, work, argv, goes_on=command.GOES_ON)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
