"""What ViTune has: methods, data sets, backbones, configs, keys, and recipes.

    vitune list methods                     how much each trains, and its paper
    vitune list methods digits MODEL.LORA.RANK 4
    vitune list tasks DATA.DATAPATH data    data sets, and where each of them is
    vitune list backbones                   and whether their weights are here
    vitune list backbones timm:dinov2       timm's with "dinov2" in their name
    vitune list backbones hf:               transformers', from the cache of the Hub
    vitune list recipes --method LoRA       published figures to repeat
    vitune list configs sweep               names that commands take
    vitune list keys warmup                 config keys about warm-up
    vitune list keys --format json > keys.json

In a terminal that is too narrow, long cells move below their rows; in a pipe
every row is one line.

Exit status: 0 when something was listed; 2 for settings with problems; 1 for
anything else, such as a backbone that no method works on, or a word that
nothing has in its name.
"""

import argparse
import logging
import shutil
import sys

from ...utils.logging import setup_logging
from .. import command
from ..repro.__main__ import TFLOPS

WHAT = ("methods", "tasks", "backbones", "recipes", "configs", "keys")
FORMATS = ("text", "markdown", "json")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=WHAT, metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="WORD | CONFIG | KEY VALUE",
        help="a word to look for (backbones, recipes, configs, keys), or a config and settings (methods, tasks)",
    ).completer = complete
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    parser.add_argument("--paper", default="", metavar="TEXT", help="recipes of sources with this in their name")
    parser.add_argument("--method", default="", metavar="TEXT", help="recipes of methods with this in their name")
    parser.add_argument("--task", default="", metavar="TASK", help="recipes of this task alone")
    parser.add_argument("--tflops", type=float, default=TFLOPS, metavar="N", help=f"of the GPU (default: {TFLOPS:g})")


def complete(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """What the shell may put in after WHAT."""
    from ...configs.files import config_names
    from ...configs.reference import all_keys

    if parsed_args.what in ("configs", "recipes"):
        return config_names()
    return [*(config_names() if parsed_args.what in ("methods", "tasks") else []), *all_keys()]


def work(args: argparse.Namespace) -> int:
    from ...utils.text import put_out
    from .work import LISTINGS

    setup_logging(logging.ERROR, stderr=True)  # notes about a run's settings mean nothing here
    table = LISTINGS[args.what](args)
    if args.format == "text":
        return put_out(table.text(shutil.get_terminal_size().columns if sys.stdout.isatty() else 0))
    return put_out(table.json() if args.format == "json" else table.markdown(padded=True))


def main(argv: list[str]) -> int:
    return command.run("list", __doc__, add_options, work, argv, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
