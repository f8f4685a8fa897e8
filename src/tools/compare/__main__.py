"""Find out whether finished runs make the same mistakes on one test set, and what an ensemble gains.

    vitune compare output/digits/vit_micro_glyphs/*/*
    vitune compare LORA_42 LORA_44 SSF_42 SSF_44 --on imagenet-v2=data --confident 0.1
    vitune compare RUN_DIR RUN_DIR --shift noise=0.3

Tables: agreement, shared errors and agreement on each run's most confident images, next to what
independent predictions would give; the accuracy of an oracle that picks a correct run; ensembles
by mean logits, mean probabilities and vote, next to ensembles of as many seeds of one method;
accuracy by class; calibration. The test set is the runs' own, or the one given by --on or --shift.
KEY VALUE pairs override the runs' settings.

Writes compare.json, compare.md, agreement.png, calibration.png and predictions.csv to
RUN_DIR/compare of the first run, or to --to DIR.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error.
"""

import argparse
import sys

from .. import command
from ..finished.command import add_study_options


def add_options(parser: argparse.ArgumentParser) -> None:
    add_study_options(parser)
    parser.add_argument(
        "--confident", type=float, default=0.25, metavar="SHARE", help="of images that count as sure (default: 0.25)"
    )


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("compare", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
