"""Fold what a run learned into its ViT. The result is a plain timm model that does not need ViTune.

    vitune merge RUN_DIR merged/digits
    vitune merge RUN_DIR digits.safetensors

If OUT ends in .safetensors, .pth or .pt, it is a file with timm's state dict, classifier included.
Any other OUT is a folder that timm loads by itself; its config.json also has the class names and
how images are prepared. timm's transform always antialiases when it shrinks images, VPT's pipeline
does not: where the two differ, the printed lines prepare images with Pillow and numpy instead.

Nothing is written unless the merged model gives the logits of the tuned one. KEY VALUE pairs
override the run's settings, such as MODEL.MODEL_ROOT if the backbone's weights have moved.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error, such as a
method that cannot be folded.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_dir", type=given_path, metavar="RUN_DIR", help="a finished run's folder, or a fit's, or tuned.safetensors"
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
