"""Prepare data sets: download, check and convert them. VTAB_SETUP.md has the whole story.

    vitune prepare --list                                    how to get each task
    vitune prepare cifar100 dtd --data-dir data/tfds         prepare what is missing
    vitune prepare vtab --data-dir data/tfds --manual-dir by-hand --python tf-env/bin/python
    vitune prepare food101 aircraft --data-dir data          sets that torchvision downloads
    vitune prepare vtab --data-dir data/tfds --verify        read every record
    vitune prepare convert --help                            other formats, without TensorFlow

Only the preparation of VTAB-1k needs TensorFlow. It runs in a process of its own, with the
interpreter that --python names. Tasks that are ready are left alone. After a failure, run the same
command again: downloads are kept.

Exit status: 0 if all tasks are ready, 2 for a problem with the command line, 1 for any other error,
such as data that are missing, damaged, or could not be prepared.
"""

import argparse
import shutil
import sys
from pathlib import Path

from ...configs.files import ConfigError
from ...utils.paths import given_path
from .. import command
from .recipes import FORMATS

CONVERT = """\
Convert a data set without TensorFlow, compare the result with what it was made from, and put it in place when it is
complete. The same command goes on after an interruption.

    vitune prepare convert data/tfds/cifar100/3.0.2 fast/cifar100/3.0.2 --to array_record
    vitune prepare convert data/tfds fast --to array_record --task vtab
    vitune prepare convert data/tfds data/vtab-1k --to noah --task cifar100 dtd
    vitune prepare convert data/vtab-1k data/as-tfds --to tfds --task cifar100

array_record, tfrecord: a TFDS directory into the other file format, records untouched.
noah: TFDS directories into VTAB folders, as NOAH, SPT and others read them, with the original image files.
tfds: VTAB folders into TFDS directories DST/vtab_<folder>/1.0.0, which plain tfds.builder_from_directory reads.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help='tasks by any of their names; "vtab": its 19')
    parser.add_argument(
        "--data-dir",
        type=given_path,
        default=Path("data/vtab-1k"),
        metavar="DIR",
        help="where data sets go; later DATA.DATAPATH (default: %(default)s, where configs/vtab.yaml looks)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="array_record", help="of what is prepared (default: %(default)s)"
    )
    parser.add_argument(
        "--manual-dir", type=given_path, metavar="DIR", help="folder with files that were fetched by hand"
    )
    parser.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="interpreter of an environment with TensorFlow"
    )
    parser.add_argument(
        "--verify", action="store_true", help="prepare nothing; read all that is there, VTAB folders, too"
    )
    parser.add_argument("--list", action="store_true", help="print how to get each task, and end")


def work(args: argparse.Namespace) -> int | None:
    if not args.list and not args.tasks:
        raise ConfigError("which TASK? Name one or more, or give --list")
    if not shutil.which(args.python):
        raise ConfigError(f"--python {args.python}: no such program")
    from .work import perform  # here: TFDS takes seconds to load

    return perform(args)


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "src", type=given_path, metavar="SRC", help="a TFDS version directory; with --task a data folder"
    )
    parser.add_argument(
        "dst", type=given_path, metavar="DST", help="what to make; with --task the folder to make it in"
    )
    parser.add_argument("--to", choices=(*FORMATS, "noah", "tfds"), required=True)
    parser.add_argument("--task", nargs="+", metavar="TASK", help='VTAB-1k tasks, or "vtab"')
    parser.add_argument(
        "--format", choices=FORMATS, default="array_record", help="with --to tfds (default: %(default)s)"
    )


def convert(args: argparse.Namespace) -> int | None:
    from .work import perform_conversion  # here: as above

    return perform_conversion(args)


def main(argv: list[str]) -> int:
    if argv[:1] == ["convert"]:
        return command.run("prepare convert", CONVERT, add_convert_options, convert, argv[1:])
    return command.run("prepare", __doc__, add_options, work, argv, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
