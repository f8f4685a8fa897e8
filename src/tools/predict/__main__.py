"""What a finished run says of images: a class and its probability for every file, as CSV or JSON.

    vitune predict output/digits/vit_micro_glyphs/lora/lr0.005_... photos/ cat.jpg "more/**/*.png"
    vitune predict output/digits/vit_micro_glyphs/lora/lr0.005_... photos/ --top 3 --to predictions.json

IMAGES are files, folders (with all folders below) and patterns. Pixels are prepared as in the run's own evaluation.
Without --to, CSV goes to the standard output, and everything else to stderr. KEY VALUE pairs override the run's
settings, such as DEVICE cpu, SOLVER.AMP bf16, DATA.NUM_WORKERS 8, or MODEL.MODEL_ROOT and the folder in which the
backbone's weights are now.

Probabilities are the softmax of the logits; of runs with SOLVER.LOSS sigmoid each class has one of its own, and they do
not sum to one.

Names of files and classes stand in CSV as they are. A spreadsheet takes one such as "=1+1" for a formula: where names
come from strangers, --for-spreadsheets.

Exit status: 0 when every image was predicted; 1 when some files are broken or missing, which are named while the others
are predicted, or for any other error; 2 for settings with problems.
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
