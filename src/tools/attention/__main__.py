"""Show what a ViT attends to before and after tuning: attention maps and rollout of chosen images.

    vitune attention RUN_DIR photos/cat.jpg photos/dogs/
    vitune attention RUN_DIR --blocks "1 2 4" --count 3

For each image, one picture: the pre-trained ViT in the upper row, the tuned one in the lower.
Each map shows how much the class token attends to every patch in one block, averaged over heads
(without a pooled class token: the average over patches), as an overlay on the image the model
sees. The last column is attention rollout (Abnar & Zuidema, 2020, arXiv:2005.00928). A value of 1
is an even share, 1 / number of patches. Without IMAGES, test images of the run from different
classes are used. KEY VALUE pairs override the run's settings, such as DEVICE cpu.

Writes one PNG per image, attention.json and attention.md to RUN_DIR/attention, or to --to DIR.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error.
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
