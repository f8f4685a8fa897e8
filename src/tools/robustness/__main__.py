"""Measure the accuracy of finished runs on shifted test sets.

    vitune robustness output/digits/vit_micro_glyphs/*/* --shift noise=0.3 rotation=30 inversion
    vitune robustness RUN_DIR ... --on imagenet-v2=data imagenet-r=data imagenet-a=data
    vitune robustness RUN_DIR --on night=photos/at-night --classes names.json

--on names other test sets with the runs' classes: NAME=PATH with a task such as imagenet-r, or a
folder of class folders (or one with test/ or val/ inside). A set with only some of the classes is
scored among those, as is usual for ImageNet-R and ImageNet-A. --classes maps the names of its
classes to those of the runs. --shift changes the runs' own test images: noise, blur, rotation,
contrast, brightness or inversion, with the amount after "=".

Runs that differ only in their seed share a row. If runs started from a zero-shot head, the model
before tuning gets a row of its own. KEY VALUE pairs override the runs' settings.

Writes robustness.json, robustness.md and robustness.png to RUN_DIR/robustness of the first run, or
to --to DIR.

Exit status: 0 on success, 2 for a problem with the settings, 1 for any other error.
"""

import argparse
import sys

from .. import command
from ..finished.command import add_study_options


def add_options(parser: argparse.ArgumentParser) -> None:
    add_study_options(parser)


def work(args: argparse.Namespace) -> int | None:
    from .work import perform  # here: torch takes seconds to load

    return perform(args)


def main(argv: list[str]) -> int:
    return command.run("robustness", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
