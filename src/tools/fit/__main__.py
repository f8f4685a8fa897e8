"""From a folder of images to a model, and a promise of its accuracy.

    vitune fit photos/ --minutes 30
    vitune fit labels.csv --steps 2000 --out fits/birds
    vitune fit photos/ DATA.CROPSIZE 112 MODEL.MODEL_ROOT weights

photos/ holds <class>/<image>, or train/<class>/<image> with val/ and test/ if you like. A CSV has
the columns image,label and, if you like, split (train, val, test) and group (images of one group,
such as a person, are never on both sides of a comparison).

It looks at the images, then at every pre-trained network whose weights are here: neighbours and
linear heads on features that are computed once, then tuned networks by successive halving, then
one final model. The accuracy it promises comes from images that took part in no choice; a test
folder is read once, at the end. Everything goes into --out, by default output/fit/<name>.

The same command goes on after a stop, however it was stopped. With --steps the choice depends on
the images, the settings and the seed alone; with --minutes also on the speed of the machine.

Exit status: 0 if there is a model; 2 for a problem with the command; 1 for any other error; 75 if
SIGTERM, SIGINT or SIGUSR1 stopped it.
"""

import argparse
import sys
from pathlib import Path

from ...utils.paths import given_path
from .. import command

MINUTES = 30.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", type=given_path, metavar="FOLDER|CSV", help="class folders, or a CSV of images and labels"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help=f"the budget (default: {MINUTES:g})")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="the budget in training steps instead")
    parser.add_argument("--out", type=given_path, metavar="FOLDER", help="where everything goes")
    parser.add_argument("--seed", type=int, default=42, help="of the splits and the training (default: %(default)s)")
    parser.add_argument(
        "--backbones", default="", metavar="NAMES", help="comma-separated, instead of all whose weights are here"
    )
    command.add_settings(parser, "those of every run")


def work(args: argparse.Namespace) -> int | None:
    from .request import Request, default_folder  # here, and what follows: torch takes seconds to load

    names = [name for name in args.backbones.split(",") if name]
    minutes = MINUTES if args.minutes is None and not args.steps else args.minutes
    request = Request(args.data, minutes, args.steps, args.seed, names, args.opts)
    request.check()
    from ...utils.logging import setup_logging
    from .report import summary
    from .work import fit_images

    setup_logging(only=__package__)
    folder: Path = args.out or default_folder(args.data)
    print(summary(fit_images(request, folder), folder))
    return 0


def main(argv: list[str]) -> int:
    return command.run("fit", __doc__, add_options, work, argv, goes_on=command.GOES_ON, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
