"""Fold what a run learned into its ViT: a plain timm model, which needs nothing of this project.

    vitune merge output/digits/vit_micro_glyphs/lora/lr0.005_... merged/digits
    vitune merge output/digits/vit_micro_glyphs/lora/lr0.005_... digits.safetensors

OUT ending in .safetensors, .pth or .pt becomes a file: timm's state dict, classifier included. Any other OUT becomes a
folder that timm loads by itself: its config.json also has the class names and how images are prepared. Where timm's
transform cannot make the run's pixels (it smooths images that it makes smaller, VPT's pipeline does not), the printed
lines make them with Pillow and numpy.

Before anything is written, the merged model must give the tuned model's logits. KEY VALUE pairs override the run's
settings, such as MODEL.MODEL_ROOT and the folder in which the backbone's weights are now.

Exit status: 0 when OUT was written, 2 for settings with problems, 1 for anything else, such as a method that does not
fold.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_dir", type=given_path, metavar="RUN_DIR", help="a finished run's folder, or its tuned.safetensors"
    )
    parser.add_argument("out", metavar="OUT", type=given_path, help="the folder or file to write")
    parser.add_argument("--force", action="store_true", help="overwrite an earlier merged model at OUT")
    command.add_settings(parser)


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("merge", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
