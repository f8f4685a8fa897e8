"""What FreqFit's filters have learned: what they do to each frequency, how far they reach, what becomes of token maps.

    vitune filters output/digits/vit_micro_glyphs/lora+freqfit/lr0.005_...
    vitune filters output/digits/vit_micro_glyphs/lora+freqfit/lr0.005_... photos/ --count 100

A filter adds to the tokens T times their spectrum, channel by channel. The first picture has, for every filter, means
over channels of |T|, its magnitude at each frequency (zero in the middle), and of |1 + T|, by which each frequency is
multiplied; and its answer to an impulse in the middle of the grid, its receptive field. The second has the power of the
token maps by frequency, and by what each filter multiplies it, over IMAGES: files, folders, patterns, or else some of
the run's own test images; without those, there is no second picture. KEY VALUE pairs override the run's settings.

Writes filters.png, spectra.png, filters.json and filters.md into RUN_DIR/filters, or --to DIR.
Exit status: 0 when they were written, 2 for settings with problems, 1 for anything else.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command
from ..finished.command import add_image_options


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, "[IMAGES...]")
    parser.add_argument("--count", type=int, default=64, metavar="N", help="own test images to look at (default: 64)")
    parser.add_argument("--to", type=given_path, metavar="DIR", help="where to write (default: RUN_DIR/filters)")


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("filters", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
