"""Do finished runs make the same mistakes? Their answers to one test set, side by side and together.

    vitune compare output/digits/vit_micro_glyphs/*/*
    vitune compare LORA_42 LORA_44 SSF_42 SSF_44 --on imagenet-v2=data --confident 0.1
    vitune compare RUN_DIR RUN_DIR --shift noise=0.3

Agreement, errors in common and agreement on what each run is most confident of, against what independent answers would
give; the accuracy of whoever is right; ensembles by mean logits, mean probabilities and vote, with as many seeds of one
method as control where there are so many; accuracy by class; calibration. The test set is the runs' own, or the one
that --on or --shift names. KEY VALUE pairs override the runs' settings.

Writes compare.json, compare.md, agreement.png, calibration.png and predictions.csv into RUN_DIR/compare (of the first
run), or --to DIR. Exit status: 0 when they were written, 2 for settings with problems, 1 for anything else.
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
