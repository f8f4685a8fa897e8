"""Classify image files with a finished run: a class and its probability for every file, as CSV or JSON.

    vitune predict RUN_DIR photos/ cat.jpg "more/**/*.png"
    vitune predict RUN_DIR photos/ --top 3 --to predictions.json

RUN_DIR is a finished run's folder, or one that vitune fit wrote. IMAGES are files, folders
(searched with all their subfolders) and patterns. Pixels are prepared as in the run's own
evaluation. Without --to, CSV goes to stdout and everything else to stderr. KEY VALUE pairs override
the run's settings, such as DEVICE cpu, SOLVER.AMP bf16, DATA.NUM_WORKERS 8, or MODEL.MODEL_ROOT if
the backbone's weights have moved.

Probabilities are the softmax of the logits. For runs with SOLVER.LOSS sigmoid they are the sigmoid,
one for each class, and do not sum to one.

CSV holds names of files and classes unchanged. A spreadsheet takes a name such as "=1+1" for a
formula: use --for-spreadsheets if the names come from someone you do not trust.

Exit status: 0 if every image was classified; 1 if files are broken or missing (they are named, and
the others are classified), or for any other error; 2 for a problem with the settings.
"""

import argparse
import sys

from ...configs.files import ConfigError
from ...utils.paths import given_path
from .. import command
from ..finished.command import add_image_options

FORMATS = (".csv", ".json")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, "IMAGES...")
    parser.add_argument(
        "--to", type=given_path, metavar="FILE", help="a .csv or .json file to write (default: CSV on stdout)"
    )
    parser.add_argument("--top", type=int, default=1, metavar="K", help="also name the next likeliest, K in all")
    parser.add_argument(
        "--for-spreadsheets", action="store_true", help="in CSV, write names that are formulas after an apostrophe"
    )
    parser.add_argument("--probabilities", action="store_true", help="also write the probability of every class")
    parser.add_argument(
        "--batch", type=int, default=0, metavar="N", help="images at once (default: as the run's evaluation)"
    )


def work(args: argparse.Namespace) -> int | None:
    if args.to and args.to.suffix not in FORMATS:
        raise ConfigError(f"--to {args.to}: the name must end in {' or '.join(FORMATS)}")
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("predict", __doc__, add_options, work, argv, stderr=lambda args: not args.to)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
