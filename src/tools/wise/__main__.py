"""Interpolate between the pre-trained and the tuned model (weight-space ensembles, WiSE) and plot accuracy.

    vitune wise RUN_DIR --shift noise=0.3 rotation=30 inversion
    vitune wise RUN_DIR --on imagenet-v2=data imagenet-r=data imagenet-a=data imagenet-sketch=data
    vitune wise RUN_DIR --start LINEAR_RUN_DIR --on photos/at-night --classes names.json

At alpha 0 the ViT is the pre-trained one, at alpha 1 the tuned one. In between, inserted modules
are scaled, and weights that both have are interpolated. If the run started from a zero-shot head,
the head starts there too; with --start it starts at the head of that run of linear probing;
otherwise it is the tuned head throughout. alpha is chosen on the run's validation images only: for
a run that trained on them (DATA.TRAIN_SPLIT trainval) the curve is shown, and none is chosen.

--on names other test sets with the run's classes: NAME=PATH with a task such as imagenet-r, or a
folder of class folders. --shift changes the run's own test images: noise, blur, rotation, contrast,
brightness or inversion, with the amount after "=". KEY VALUE pairs override the runs' settings, such
as DEVICE or DATA.DATAPATH.

Writes wise.json, wise.md and wise.png to RUN_DIR/wise of the first run, or to --to DIR.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command
from ..finished.command import add_study_options

ALPHAS = " ".join(f"{i / 10:g}" for i in range(11))


def add_options(parser: argparse.ArgumentParser) -> None:
    add_study_options(parser)
    parser.add_argument("--alphas", default=ALPHAS, metavar="NUMBERS", help=f"in one string (default: {ALPHAS!r})")
    parser.add_argument(
        "--start", type=given_path, metavar="RUN_DIR", help="a run of linear probing: its head is at alpha 0"
    )
    parser.add_argument("--head-only", action="store_true", help="interpolate the head alone")


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("wise", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
