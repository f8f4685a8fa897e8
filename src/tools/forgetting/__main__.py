"""What tuned encoders still know of an old data set: k-NN and a linear probe on their features, before and after.

    vitune forgetting output/digits/vit_micro_glyphs/lora/lr0.005_... --on letters=data/letters
    vitune forgetting RUN_DIR RUN_DIR --on imagenet=data DATA.RESIZE crop DATA.NORMALIZE imagenet

--on names the old data set: NAME=PATH with any task (--list-tasks of train.py) and its DATA.DATAPATH, or a folder with
train/<class>/<image> and test/<class>/<image>; digits needs no path. Its training images are the bank of neighbours,
its test images are counted. Features are the encoder's own, pooled, behind its final norm: neither logits, nor what
VQT and side-tuning put beside them. They are computed once and kept in DATA.CACHE_DIR.

k-NN (as in the Block Expansion paper, Bafghi et al., 2024, arXiv:2404.17245) weighs neighbours by exp(cosine / T). The
linear probe is a logistic regression whose penalty is chosen on a fifth of the old training images. The mean is that of
the run's own test accuracy and the old k-NN accuracy.

Old images get the run's size, mean and standard deviation, and are cropped as their own task does. KEY VALUE pairs
with DATA. change the old set's images; others override the runs' settings, such as DEVICE or SOLVER.AMP bf16.

Writes forgetting.json, forgetting.md and forgetting.png into RUN_DIR/forgetting (of the first run), or --to DIR.
Exit status: 0 when they were written, 2 for settings with problems, 1 for anything else.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command

KS = "1 5 10 20 100 200"
REPORTED = 20  # as the paper's table has it


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="RUN_DIR ... [KEY VALUE ...]", help="finished runs, settings")
    parser.add_argument("--on", required=True, metavar="SET", help="the old data set: NAME=PATH, or a folder")
    parser.add_argument("--k", default=KS, metavar="NUMBERS", help=f"in one string (default: {KS!r})")
    parser.add_argument(
        "--report-k", type=int, default=0, metavar="K", help=f"the k of means and changes (default: {REPORTED})"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.07, metavar="T", help="of k-NN's weights (default: 0.07)"
    )
    parser.add_argument("--no-probe", action="store_true", help="k-NN alone")
    parser.add_argument(
        "--to", type=given_path, metavar="DIR", help="where to write (default: in the first run's folder)"
    )


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("forgetting", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
