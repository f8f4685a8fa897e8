"""What ``vitune prepare`` does: list, get and check tasks, or convert them."""

import argparse
from pathlib import Path

from ...configs.config import ConfigError
from ...data.sources.base import DataError
from ...data.tasks import TASKS, Task
from .convert import convert_records, folder_splits, write_folder, write_tfds
from .recipes import FORMATS, RECIPES, size_text
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


def perform(args: argparse.Namespace) -> int:
    """Prepare or check tasks; the exit status.

    Raises:
        ConfigError: an unknown task.
    """
    if args.list:
        print_list()
        return 0
    return 0 if prepare(named_tasks(args.tasks), args) else 1


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


def perform_conversion(args: argparse.Namespace) -> None:
    """Convert one version directory, or tasks below ``args.src``.

    Raises:
        ValueError, OSError: the message says what, where and what to do.
    """
    if not args.task:
        if args.to not in FORMATS:
            raise ConfigError(f"--to {args.to} needs --task: the labels are the task's")
        info = convert_records(args.src, args.dst, args.to)
        print(summary(args.dst, info))
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
        print(summary(place, convert_records(here, place, args.to)))
    elif args.to == "noah":
        write_folder(open_task(task, "tfds", args.src), place)
        print(f"{place}: image files and lists")
    else:
        source = open_task(task, "noah", args.src)
        splits, name = folder_splits(source), place.parent.name
        print(summary(place, write_tfds(splits, place, name, task.num_classes, args.format, source.version)))


def summary(place: Path, info) -> str:
    counts = ", ".join(f"{name} {split.num_examples:,}" for name, split in info.splits.items())
    return f"{place}: {info.file_format.value}, {counts}"
