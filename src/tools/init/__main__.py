"""Copy the configs that ship with ViTune, to edit them.

    vitune init                              all, and the scripts for Slurm
    vitune init lab                          the same, to lab/configs
    vitune init --only digits sweeps/photos  these, and what they are based on
    vitune init --only methods               all configs of a folder
    vitune init --keep                       after an upgrade: add what is new

They go to FOLDER/configs, where commands that run in FOLDER look first: then
`vitune train digits` reads ./configs/digits.yaml. Files that you have edited
are replaced only with --force. Without --force or --keep nothing is copied
where there are any, and the message names them.

Exit status: 0 when the files are there; 1 if not, because a name is unknown,
say, or files were edited.
"""

import argparse
import sys
from pathlib import Path

from ...utils.paths import given_path
from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", type=given_path, default=Path(), metavar="FOLDER", help="where you work (default: here)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="configs, or folders of them")
    edited = parser.add_mutually_exclusive_group()
    edited.add_argument("--keep", action="store_true", help="leave files that you have edited as they are")
    edited.add_argument("--force", action="store_true", help="replace files that you have edited")


def work(args: argparse.Namespace) -> None:
    from .work import copy_configs, report

    to = args.folder / "configs"
    print(report(args.folder, to, args.only, copy_configs(to, args.only, args.force, args.keep)))


def main(argv: list[str]) -> int:
    return command.run("init", __doc__, add_options, work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
