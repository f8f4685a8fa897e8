"""Get data sets ready: download and prepare them, check them, convert them. VTAB_SETUP.md tells the whole story.

    python -m src.tools.prepare --list                                        how to get each task
    python -m src.tools.prepare cifar100 dtd --data-dir data/tfds             what is not there yet
    python -m src.tools.prepare vtab --data-dir data/tfds --manual-dir by-hand --python tf-env/bin/python
    python -m src.tools.prepare food101 aircraft --data-dir data              what torchvision downloads
    python -m src.tools.prepare vtab --data-dir data/tfds --verify            reads every record
    python -m src.tools.prepare convert --help                                other formats, without TensorFlow

Only preparing VTAB-1k needs TensorFlow; it runs in a process of its own, with the interpreter that --python
names. A task that is ready is left as it is. After a failure, the same command goes on: what was downloaded is kept.

Exit status: 0 when all tasks are ready, 2 for a command that cannot be run, 1 for anything else: data that is missing,
damaged, or could not be prepared.
"""

import argparse
import shutil
import sys
from pathlib import Path

from ...data.sources.base import DataError
from ...data.tasks import TASKS, Task
from ...utils.paths import given_path
from .convert import FORMATS, convert_records, folder_splits, write_folder, write_tfds
from .recipes import RECIPES, size_text
from .tasks import VTAB, find_version, layout_of, named_tasks, open_task, prepare, recipe_of, vtab_tasks

FGVC = """\
FGVC: images from their publishers, train.json, val.json and test.json from VPT's README (github.com/KMnP/vpt), beside
each other in DATA.DATAPATH; see VTAB_SETUP.md.
    CUB            https://data.caltech.edu/records/65de6-vp158
    nabirds        https://dl.allaboutbirds.org/nabirds (a form)
    OxfordFlowers  https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
    StanfordDogs   http://vision.stanford.edu/aditya86/ImageNetDogs/
    StanfordCars   its host is gone: see github.com/pytorch/vision/issues/7545
"""


def print_list() -> None:
    """How to get each task."""
    for task in vtab_tasks(["vtab"]):
        recipe = recipe_of(task)
        how = "by hand, see below" if recipe.by_hand else f"downloaded by TFDS, {size_text(recipe.download)}"
        print(f"{task.name:22}{recipe.builder + ' ' + recipe.makes:52}{how}")
        for warning in recipe.warnings:
            print(f"    {warning}")
    for recipe in RECIPES.values():
        if recipe.by_hand:
            print(f"\n{recipe.builder}\n{recipe.by_hand}")
    print(f"\n{FGVC}")
    others: dict[str, list[str]] = {}
    for task in TASKS.values():
        if task.group not in ("", "FGVC", *VTAB):
            others.setdefault(task.layouts[0].expects(), []).append(task.name)
    for expected, names in others.items():
        print(f"{', '.join(names)}\n    {expected}")


# ---- convert ----

CONVERT = """\
Convert a data set without TensorFlow, compare the result with what it was made from, and put it in place when it is
complete. The same command goes on after an interruption.

    python -m src.tools.prepare convert data/tfds/cifar100/3.0.2 fast/cifar100/3.0.2 --to array_record
    python -m src.tools.prepare convert data/tfds fast --to array_record --task vtab
    python -m src.tools.prepare convert data/tfds data/vtab-1k --to noah --task cifar100 dtd
    python -m src.tools.prepare convert data/vtab-1k data/as-tfds --to tfds --task cifar100

array_record, tfrecord: a TFDS directory into the other file format, records untouched.
noah: TFDS directories into VTAB folders, as NOAH, SPT and others read them, with the original image files.
tfds: VTAB folders into TFDS directories DST/vtab_<folder>/1.0.0, which plain tfds.builder_from_directory reads.
"""


def convert(args: argparse.Namespace) -> None:
    """Convert one version directory, or tasks below ``args.src``.

    Raises:
        ValueError, OSError: the message says what, where and what to do.
    """
    if not args.task:
        if args.to not in FORMATS:
            raise ValueError(f"--to {args.to} needs --task: the labels are the task's")
        info = convert_records(args.src, args.dst, args.to)
        print(said(args.dst, info))
        return
    for task in vtab_tasks(args.task):
        convert_task(task, args)


def convert_task(task: Task, args: argparse.Namespace) -> None:
    if args.to in FORMATS:
        layout = layout_of(task, "tfds")
        if not (here := find_version(layout, args.src)):
            raise DataError(f"{args.src} has no finished version of {layout.builder}")
        place = args.dst / here.relative_to(args.src)
    else:
        folder = layout_of(task, "noah").folder
        place = args.dst / (folder if args.to == "noah" else f"vtab_{folder}/1.0.0")
    if place.exists():
        print(f"{place}: there already, left as it is")
    elif args.to in FORMATS:
        print(said(place, convert_records(here, place, args.to)))
    elif args.to == "noah":
        write_folder(open_task(task, "tfds", args.src), place)
        print(f"{place}: image files and lists")
    else:
        source = open_task(task, "noah", args.src)
        splits, name = folder_splits(source), place.parent.name
        print(said(place, write_tfds(splits, place, name, task.num_classes, args.format, source.version)))


def said(place: Path, info) -> str:
    counts = ", ".join(f"{name} {split.num_examples:,}" for name, split in info.splits.items())
    return f"{place}: {info.file_format.value}, {counts}"


# ---- command line ----


def parse_prepare(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    args = parser.parse_args(argv)
    if not args.list and not args.tasks:
        parser.error("TASK is needed (or --list)")
    if not shutil.which(args.python):
        parser.error(f"--python {args.python}: no such program")
    return args


def parse_convert(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.prepare convert",
        description=CONVERT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    converts = argv[:1] == ["convert"]
    args = parse_convert(argv[1:]) if converts else parse_prepare(argv)
    try:
        if converts:
            convert(args)
            return 0
        if args.list:
            print_list()
            return 0
        tasks = named_tasks(args.tasks)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, DataError | OSError) else 2
    try:
        return 0 if prepare(tasks, args) else 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
