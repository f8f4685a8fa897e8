"""Which published figures can be repeated here: what they are, the command for each, its runs, and hours on a GPU.

    vitune repro --list
    vitune repro --list --paper OSU-MLB --method LoRA --task dtd
    vitune repro --list --tflops 250
    vitune repro study_fixed

The files are configs/repro/*.yaml, and what each repeats is its SWEEP.PUBLISHED. A name shows what is known of its
source and what still differs. Nothing is read but these files: no weights, no images.

Hours are those of one GPU that computes --tflops TFLOP/s all the time. 45 is a guess for float32, the default
precision, on an H100 or H200 without TensorFloat-32; with SOLVER.AMP bf16, 250. Decoding of images is left out.
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
