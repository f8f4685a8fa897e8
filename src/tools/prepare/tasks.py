"""Preparing tasks: find one, get it with TFDS in another process, check it, and report."""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ...configs.config import ConfigError
from ...data.sources.base import DataError, Layout, Source, Wanted
from ...data.sources.tfds import TFDS
from ...data.sources.torchvision_sets import TorchvisionSet
from ...data.tasks import TASKS, Task, find_task
from ...utils.shipped import project
from .convert import open_info
from .recipes import RECIPES, Recipe, explain_failure, size_text
from .verify import CHECKSUMS, Findings, check_images, check_labels, check_records, was_checked

VTAB = ("Natural", "Specialized", "Structured")
BUILD = Path(__file__).with_name("tfds_build.py")
NO_TENSORFLOW = 3  # its exit status
OUTPUT_KEPT = 100_000  # last bytes of its output, to find the cause of a failure


@dataclass
class Outcome:
    """The outcome for a data set; state is "ready", "prepared", "missing", "damaged" or "failed"."""

    state: str
    where: Path | None = None
    counts: dict[str, int] | None = None

    @property
    def good(self) -> bool:
        return self.state in ("ready", "prepared")


# ---- tasks and recipes ----


def named_tasks(names: list[str]) -> list[Task]:
    """The tasks with these names or aliases, each once; "vtab" stands for its 19 tasks.

    Raises:
        ConfigError: an unknown name.
    """
    everything = [task for task in TASKS.values() if task.group in VTAB]
    try:
        chosen = [task for name in names for task in (everything if name == "vtab" else [find_task(name)])]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return list({task.name: task for task in chosen}.values())


def vtab_tasks(names: list[str]) -> list[Task]:
    """The same, for VTAB-1k only.

    Raises:
        ConfigError: an unknown name, or a task that is not part of VTAB-1k.
    """
    chosen = named_tasks(names)
    if other := [task.name for task in chosen if task.group not in VTAB]:
        raise ConfigError(f"{', '.join(other)}: only VTAB-1k's tasks can be converted")
    return chosen


def by_tfds(task: Task) -> bool:
    """Whether a task is prepared by TFDS."""
    return isinstance(task.layouts[0], TFDS)


def layout_of(task: Task, kind: str) -> Layout:
    """The task's layout "tfds" or "noah"."""
    return next(layout for layout in task.layouts if layout.kind == kind)


def recipe_of(task: Task) -> Recipe:
    """How to get a task; tasks that differ only in labels share one recipe."""
    return RECIPES[layout_of(task, "tfds").builder]


def open_task(task: Task, kind: str, root: Path) -> Source:
    """Open a task from the TFDS directories or VTAB folders below ``root``.

    Raises:
        DataError: it is missing or broken.
    """
    layout = layout_of(task, kind)
    if not (folder := layout.find(root)):
        raise DataError(f"{task.name} is not in {root}: {layout.expects()}")
    return layout.open(folder, Wanted())


def find_version(layout: TFDS, data_dir: Path) -> Path | None:
    """The version directory that runs use: the newest that VPT accepts, else the newest; None if none is finished."""
    folder = layout.find(data_dir)
    return folder and layout.version_folder(folder)


# ---- prepare ----


def prepare(tasks: list[Task], args: argparse.Namespace) -> bool:
    """Prepare and check what the tasks need; prints what is missing first, and a table last.

    Returns whether everything is ready.
    """
    by_builder: dict[str, list[Task]] = {}
    for task in (task for task in tasks if by_tfds(task)):
        by_builder.setdefault(recipe_of(task).builder, []).append(task)
    outcomes = {task.name: get_other(task, args) for task in tasks if not by_tfds(task)}
    for builder, its in by_builder.items():
        recipe, folder = RECIPES[builder], find_version(layout_of(its[0], "tfds"), args.data_dir)
        if not folder and args.verify:
            outcomes |= {task.name: check_folder(task, args.data_dir) for task in its}
        elif not folder and not report_missing(recipe, args.manual_dir):
            outcomes |= {task.name: Outcome("missing") for task in its}
    for builder, its in by_builder.items():
        if its[0].name not in outcomes:
            outcome = prepare_one(RECIPES[builder], its, args)
            outcomes |= {task.name: outcome for task in its}
    print_table(tasks, outcomes, args.data_dir)
    return all(outcome.good for outcome in outcomes.values())


def get_other(task: Task, args: argparse.Namespace) -> Outcome:
    """A task that TFDS does not prepare: find it, download it with torchvision, or print how to get it."""
    sets = [layout for layout in task.layouts if isinstance(layout, TorchvisionSet)]
    state = "ready"
    if sets and sets[0].downloads and not args.verify and sets[0].find(args.data_dir) is None:
        print(f"downloading torchvision's {sets[0].name} into {args.data_dir}", flush=True)
        args.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            sets[0].download(args.data_dir)
        except (OSError, RuntimeError) as error:
            print(f"error: {sets[0].name} could not be downloaded: {error}", file=sys.stderr)
            return Outcome("failed")
        state = "prepared"
    for layout in task.layouts:
        if (folder := layout.find(args.data_dir)) is not None and layout.fits(folder, task.num_classes):
            try:
                source = layout.open(folder, Wanted())
            except DataError as error:
                report(str(folder), Findings(damage=[str(error)]))
                return Outcome("damaged", folder)
            return Outcome(state, folder, {name: len(split) for name, split in source.splits.items()})
    print(f"{task.name} is not in {args.data_dir}. It can be read from any of:")
    print("\n".join(f"    {layout.kind}: {layout.expects()}" for layout in task.layouts), end="\n\n", flush=True)
    return Outcome("missing")


def report_missing(recipe: Recipe, manual_dir: Path | None) -> bool:
    """Print how to get manual downloads, and which are missing; returns whether all are there."""
    if not recipe.by_hand:
        return True
    missing = recipe.missing(manual_dir) if manual_dir else ["no --manual-dir was given"]
    if missing:
        print(f"{recipe.builder} cannot be downloaded by TFDS.\n{recipe.by_hand}\nMissing:")
        print("\n".join(f"    {line}" for line in missing), end="\n\n", flush=True)
    return not missing


def prepare_one(recipe: Recipe, tasks: list[Task], args: argparse.Namespace) -> Outcome:
    """Download and prepare one data set unless it exists, then check it."""
    layout, state = layout_of(tasks[0], "tfds"), "ready"
    if not (folder := find_version(layout, args.data_dir)):
        state = "prepared"
        if not build(recipe, args):
            return Outcome("failed")
        if not (folder := find_version(layout, args.data_dir)):
            print(f"error: {args.data_dir / recipe.builder} has no finished version", file=sys.stderr)
            return Outcome("failed")
    return check(folder, state, recipe, tasks, args)


def build(recipe: Recipe, args: argparse.Namespace) -> bool:
    """Run TFDS in a separate process, show its output, and explain a failure; returns whether it succeeded."""
    size = f", {size_text(recipe.download)} to download" if recipe.download else ""
    print(f"preparing {recipe.builder} in {args.data_dir}{size}", flush=True)
    for warning in recipe.warnings:
        print(f"  note: {warning}", flush=True)
    for remains in sorted((args.data_dir / recipe.builder).glob("*incomplete*")):
        print(f"  note: {remains} is left from a killed preparation and can be removed", flush=True)
    args.data_dir.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(args.data_dir).free < 2 * recipe.download:
        print(f"  note: the disk may be too small: {size_text(shutil.disk_usage(args.data_dir).free)} are free")
    command = [args.python, "-u", str(BUILD), recipe.builder, str(args.data_dir), args.format]
    status, output = show_and_keep(command + ([str(args.manual_dir)] if args.manual_dir else []))
    if status == NO_TENSORFLOW:
        raise DataError(
            f"{args.python} has no TensorFlow, which is needed for downloading and preparing. Create a separate "
            "environment for it once:\n\n"
            f"    python -m venv prepare-env && prepare-env/bin/pip install '{project()}[prepare]'\n\n"
            "and run the same command with --python prepare-env/bin/python"
        )
    if status:
        meaning = explain_failure(recipe.builder, output)
        print(
            f"\nerror: {recipe.builder} could not be prepared: the process ended with status {status}.\n"
            f"{meaning or 'See the end of its output for the cause.'}\n"
            f"Downloads are kept in {args.data_dir / 'downloads'}; run the same command again to continue.",
            file=sys.stderr,
            flush=True,
        )
    return not status


def show_and_keep(command: list[str]) -> tuple[int, str]:
    """Run a command and forward its output as it comes; returns its exit status and the end of the output."""
    kept = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while data := os.read(process.stdout.fileno(), 65536):
            sys.stderr.buffer.write(data)
            sys.stderr.flush()
            kept = (kept + data)[-OUTPUT_KEPT:]
    return process.returncode, kept.decode(errors="replace")


def check(folder: Path, state: str, recipe: Recipe, tasks: list[Task], args: argparse.Namespace) -> Outcome:
    """Read every record, unless that was done before and --verify is not set, and check the labels."""
    info = open_info(folder)
    counts = {name: split.num_examples for name, split in info.splits.items()}
    if was_checked(folder) and not args.verify:
        return Outcome(state, folder, counts)
    findings = check_records(folder, recipe.counts)
    report(str(folder), findings)
    for split, checksum in findings.checksums.items():
        print(f"  {split}: {counts[split]:,} records, BLAKE2b {checksum}")
    damaged = bool(findings.damage)
    for task in tasks if not damaged else []:
        try:
            labels = check_labels(open_task(task, "tfds", args.data_dir), task.num_classes)
        except DataError as error:
            labels = Findings(damage=[str(error)])
        report(task.name, labels)
        if labels.damage:
            damaged = True
            (folder / CHECKSUMS).unlink(missing_ok=True)  # so that the next call checks the labels again
    return Outcome("damaged" if damaged else state, folder, counts)


def check_folder(task: Task, data_dir: Path) -> Outcome:
    """Decode every image of a task's VTAB folder and check its labels; "missing" if there is no folder."""
    if not (folder := layout_of(task, "noah").find(data_dir)):
        return Outcome("missing")
    try:
        source = open_task(task, "noah", data_dir)
        labels, images = check_labels(source, task.num_classes), check_images(source)
    except DataError as error:
        report(str(folder), Findings(damage=[str(error)]))
        return Outcome("damaged", folder)
    report(str(folder), Findings(labels.damage + images.damage, source.notes + labels.notes))
    for split, checksum in images.checksums.items():
        print(f"  {split}: {labels.counts[split]:,} files, BLAKE2b {checksum}")
    return Outcome("damaged" if labels.damage or images.damage else "ready", folder, labels.counts)


def report(what: str, findings: Findings) -> None:
    print(what)
    for note in findings.notes:
        print(f"  {note}")
    for damage in findings.damage:
        print(f"  DAMAGED: {damage}")
    if findings.damage:
        print("  remove it and get it again, or copy the damaged files again", flush=True)


def print_table(tasks: list[Task], outcomes: dict[str, Outcome], data_dir: Path) -> None:
    rows = [("task", "state", "where", "images")]
    for task in tasks:
        outcome = outcomes[task.name]
        where = os.path.relpath(outcome.where, data_dir) if outcome.where else "-"
        counts = ", ".join(f"{name} {count:,}" for name, count in (outcome.counts or {}).items())
        rows.append((task.name, outcome.state, str(where), counts or "-"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    print(f"\nin {data_dir.absolute()}:")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"{sum(outcomes[task.name].good for task in tasks)} of {len(tasks)} tasks ready")
