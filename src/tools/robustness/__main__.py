"""How finished runs do on images that are not like those they were trained on.

    vitune robustness output/digits/vit_micro_glyphs/*/* --shift noise=0.3 rotation=30 inversion
    vitune robustness RUN_DIR ... --on imagenet-v2=data imagenet-r=data imagenet-a=data
    vitune robustness RUN_DIR --on night=photos/at-night --classes names.json

--on names other test sets with the runs' classes: NAME=PATH with a task such as imagenet-r, or a folder of class
folders (or of test/ or val/ with them). A set that has only some of the classes is scored among those, as ImageNet-R
and -A are; --classes says which of its classes is which of the runs'. --shift changes the runs' own test images: noise,
blur, rotation, contrast, brightness, inversion, with the amount behind "=". Runs that differ only in their seed are one
row. Where runs started from a zero-shot head, the untouched model is there to compare with. KEY VALUE pairs override
the runs' settings.

Writes robustness.json, robustness.md and robustness.png into RUN_DIR/robustness (of the first run), or --to DIR.
Exit status: 0 when they were written, 2 for settings with problems, 1 for anything else.
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
