"""List published results that can be repeated: their figures, and for each the command, runs and GPU hours.

    vitune repro --list
    vitune repro --list --paper OSU-MLB --method LoRA --task dtd
    vitune repro --list --tflops 250
    vitune repro study_fixed

The recipes are the files in configs/repro; SWEEP.PUBLISHED in each names the rows that it repeats.
Given the NAME of a recipe, the command prints what is known about its source and where the recipe
still differs from it. No weights or images are read.

GPU hours assume one GPU that sustains --tflops TFLOP/s and leave image decoding out. The default,
45, is a guess for float32 without TensorFloat-32 on an H100 or H200; for SOLVER.AMP bf16 use 250.
"""

import argparse
import sys

from ...configs.files import ConfigError
from .. import command

TFLOPS = 45.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="a file of configs/repro: what is known of it"
    )
    parser.add_argument("--list", action="store_true", help="every published row that can be repeated")
    parser.add_argument("--paper", default="", metavar="TEXT", help="only of sources with this in their name")
    parser.add_argument("--method", default="", metavar="TEXT", help="only of methods with this in their name")
    parser.add_argument("--task", default="", metavar="TASK", help="only this task of each row")
    parser.add_argument("--tflops", type=float, default=TFLOPS, metavar="N", help=f"of the GPU (default: {TFLOPS:g})")


def work(args: argparse.Namespace) -> int | None:
    if bool(args.name) == args.list:
        raise ConfigError("give either --list, or the name of a file of configs/repro")
    if not args.tflops > 0:
        raise ConfigError(f"--tflops {args.tflops:g}: it must be more than 0")
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("repro", __doc__, add_options, work, argv, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
