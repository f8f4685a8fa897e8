"""Measure what tuned encoders still know of an old data set, by k-NN and a linear probe on their features.

    vitune forgetting RUN_DIR --on letters=data/letters
    vitune forgetting RUN_DIR RUN_DIR --on imagenet=data DATA.RESIZE crop DATA.NORMALIZE imagenet

--on names the old data set: NAME=PATH with any task (vitune list tasks) and its DATA.DATAPATH, or
a folder with train/<class>/<image> and test/<class>/<image>; digits needs no path. Its training
images are the neighbours, its test images are classified. Features are those of the encoder,
pooled, after its final norm, without the logits and without what VQT and side-tuning add. They
are computed once and cached in DATA.CACHE_DIR.

k-NN follows the Block Expansion paper (Bafghi et al., 2024, arXiv:2404.17245): neighbours are
weighted by exp(cosine / T). The linear probe is a logistic regression whose penalty is chosen on
a fifth of the old training images. The mean in the tables is that of the run's own test accuracy
and the old k-NN accuracy.

Old images get the run's size, mean and standard deviation; they are cropped as is usual for their
own task. KEY VALUE pairs that start with DATA. change how old images are prepared; others override
the runs' settings, such as DEVICE or SOLVER.AMP bf16.

Writes forgetting.json, forgetting.md and forgetting.png to RUN_DIR/forgetting of the first run, or
to --to DIR.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error.
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
