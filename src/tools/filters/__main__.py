"""Show what FreqFit's filters have learned: their frequency response, reach, and effect on token maps.

    vitune filters RUN_DIR
    vitune filters RUN_DIR photos/ --count 100

A filter adds T times the spectrum of the tokens to them, channel by channel. The first picture
shows for every filter, averaged over channels: |T| at each frequency (zero in the middle), the
gain |1 + T|, and the response to an impulse in the middle of the grid, its receptive field. The
second shows the power spectrum of the token maps, and its gain through each filter, over IMAGES
(files, folders, patterns) or, by default, over test images of the run; if those are not available,
there is no second picture. KEY VALUE pairs override the run's settings.

Writes filters.png, spectra.png, filters.json and filters.md to RUN_DIR/filters, or to --to DIR.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error.
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
