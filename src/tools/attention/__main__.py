"""Attention maps of chosen images before and after tuning: which patches the pooled token reads, and rollout.

    vitune attention output/digits/vit_micro_glyphs/lora/lr0.005_... photos/cat.jpg photos/dogs/
    vitune attention output/digits/vit_micro_glyphs/lora/lr0.005_... --blocks "1 2 4" --count 3

Shows what the class token (where it is not pooled: the mean of the patches) reads in each block, averaged over heads,
and attention rollout (Abnar & Zuidema, 2020, arXiv:2005.00928), as overlays on the image as the model sees it: a
picture for each image, the pre-trained ViT above, the tuned one below. A value of 1 is an even share: what every patch
would get if all got alike, and nothing else got anything. Without IMAGES, some of the run's own test images, of
different classes. KEY VALUE pairs override the run's settings, such as DEVICE cpu.

Writes a PNG for each image, attention.json and attention.md into RUN_DIR/attention, or --to DIR.
Exit status: 0 when they were written, 2 for settings with problems, 1 for anything else.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command
from ..finished.command import add_image_options


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, "[IMAGES...]")
    parser.add_argument("--blocks", default="", metavar='"N ..."', help="blocks to show, or all (default: up to five)")
    parser.add_argument("--count", type=int, default=4, metavar="N", help="own test images to show (default: 4)")
    parser.add_argument("--to", type=given_path, metavar="DIR", help="where to write (default: RUN_DIR/attention)")


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("attention", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
