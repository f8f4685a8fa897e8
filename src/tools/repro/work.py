"""What ``vitune repro`` does: the published rows that files of configs/repro repeat, with runs and hours."""

import argparse
import difflib
import json
import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, product, takewhile
from operator import attrgetter
from pathlib import Path

import yaml
from fvcore.common.config import CfgNode

from ...configs.config import load_settings
from ...configs.files import ConfigError, find_config
from ...data.tasks import find_task
from ...utils.shipped import shipped
from ..report.protocol import FACTORS, SETTINGS_OF
from ..report.published import GROUPS, Published, named
from ..tune.arithmetic import speed
from ..tune.estimate import published_sizes
from ..tune.points import Point, points
from ..tune.spec import Choice, Sweep, label, load_sweep

MEANS = ("mean of 3 groups", "mean of 19 tasks", "mean of 5 tasks")
# Keys that do not change the arithmetic, or whose effect is counted separately.
NO_MATTER = ("DATA.NAME", "SEED", "SOLVER.BASE_LR", "SOLVER.WEIGHT_DECAY")


@dataclass(frozen=True)
class Row:
    """A published row that a file repeats.

    Attributes:
        theirs: the published figures.
        sweep: the part of the file's sweep that repeats it.
        command: runs that part.
    """

    file: Path
    theirs: Published
    sweep: Sweep
    command: str

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for choices in _cells(self.sweep) for task in _task(self.sweep, choices)))

    @property
    def runs(self) -> int:
        return sum(tuned + len(self.sweep.seeds) for _, _, tuned in self._parts())

    def hours(self, tflops: float) -> float:
        """Estimated hours on one GPU; nan if the number of images is unknown."""
        return sum(self._seconds(choices, candidates, tflops) for choices, candidates, _ in self._parts()) / 3600

    @property
    def figure(self) -> str:
        """The row's means, or its tasks' figures."""
        values, tasks = self.theirs.values, self.tasks
        names = [name for name in MEANS if name in values and len(tasks) > 4]
        names = names or [name for name in (tasks if len(tasks) < 5 else GROUPS) if name in values]
        return ", ".join(f"{name} {values[name]:.1f}" for name in names) or "-"

    def _parts(self) -> Iterator[tuple[tuple[Choice, ...], list[Point], int]]:
        """Every cell's choices, points, and number of tuning runs."""
        for choices in _cells(self.sweep):
            candidates = points(
                self.sweep.tune | {k: axis for choice in choices for k, axis in choice.tune.items()}, self.sweep
            )
            yield choices, candidates, len(candidates) if len(candidates) > 1 else 0

    def _seconds(self, choices: tuple[Choice, ...], candidates: list[Point], tflops: float) -> float:
        """The seconds of a cell: its tuning runs, each counted as the middle one, and the tested runs."""
        settings = {key: value for choice in choices for key, value in choice.settings.items()}
        settings |= (
            self.sweep.cells.get(tuple(label(choice) for choice in choices), {}) | candidates[len(candidates) // 2][1]
        )
        final = self._run(settings | self.sweep.final, tflops) * len(self.sweep.seeds)
        return final + (
            self._run(settings | self.sweep.tuning, tflops) * len(candidates) if len(candidates) > 1 else 0.0
        )

    def _run(self, settings: dict, tflops: float) -> float:
        base = {key: value for key, value, _ in self.sweep.settings}
        task = find_task((base | settings)["DATA.NAME"])
        own = {key: value for key, value in settings.items() if key not in NO_MATTER and not key.endswith(".SCALE")}
        cfg = _cfg(json.dumps({"DATA.NAME": task.name} | base | own))
        sizes = published_sizes(cfg, task)
        return speed(cfg, task, tflops * 1e12).seconds(cfg, sizes) if sizes else math.nan


@cache
def _cfg(settings: str) -> CfgNode:
    """The config for settings in JSON; cached, since many runs have the same cost."""
    return load_settings([(key, value, "the file") for key, value in json.loads(settings).items()], [], quiet=True)


def recipes() -> Path:
    """The folder configs/repro: the user's below the current folder, else ViTune's."""
    own = Path("configs/repro")
    return own if own.is_dir() else shipped("configs") / "repro"


def rows(method: str = "", task: str = "", folder: Path | None = None) -> list[Row]:
    """All published rows repeated by the files of ``folder``.

    Args:
        method: only rows of methods with this in their name.
        task: only this task of each row.
        folder: None: ``recipes()``.

    Raises:
        ValueError: an unknown task, or a file with problems.
    """
    task = find_task(task).name if task else ""
    matching = []
    for file in sorted((folder or recipes()).glob("*.yaml")):
        sweep = load_sweep(file)
        for theirs in named(sweep.published):
            if method.lower() in theirs.method.lower() and (row := _row(file, sweep, theirs, task)):
                matching.append(row)
    return matching


def _row(file: Path, sweep: Sweep, theirs: Published, task: str) -> Row | None:
    """The part of ``sweep`` that repeats ``theirs``; None if it does not have ``task``."""
    chosen = {}
    if "method" in sweep.over:
        chosen["method"] = [choice for choice in sweep.over["method"] if choice.label == theirs.method]
    for axis in sweep.task_axes if task else ():
        chosen[axis] = [choice for choice in sweep.over[axis] if find_task(choice.settings["DATA.NAME"]).name == task]
    if task and not sweep.task_axes and find_task(dict((k, v) for k, v, _ in sweep.settings)["DATA.NAME"]).name != task:
        return None
    if not all(chosen.values()):
        return None
    parts = [part for axis, some in chosen.items() if len(some) < len(sweep.over[axis]) for part in _pair(axis, some)]
    command = shlex.join(["vitune", "tune", _name_of(file), *parts])
    return Row(file, theirs, replace(sweep, over=sweep.over | chosen), command)


def _name_of(file: Path) -> str:
    """What ``vitune tune`` takes: the name of a file that ships, or of one in ./configs; else its path."""
    name = f"repro/{file.stem}"
    return name if find_config(name) == file else str(file)


def _pair(axis: str, choices: list[Choice]) -> tuple[str, str]:
    """The setting that limits an axis to these choices."""
    listed = yaml.safe_dump([choice.label for choice in choices], default_flow_style=True, width=math.inf)
    return f"SWEEP.OVER.{axis}", listed.strip()


def _cells(sweep: Sweep) -> Iterator[tuple[Choice, ...]]:
    return product(*sweep.over.values())


def _task(sweep: Sweep, choices: tuple[Choice, ...]) -> Iterator[str]:
    settings = {key: value for key, value, _ in sweep.settings} | {
        k: v for choice in choices for k, v in choice.settings.items()
    }
    yield find_task(settings["DATA.NAME"]).name


def table(matching: list[Row], tflops: float) -> str:
    """The rows per file and source: published figures, runs, hours and the command."""
    lines = []
    place = attrgetter("file", "theirs.source")
    for (file, source), group in groupby(sorted(matching, key=place), place):
        lines.append(f"{file}: {source}")
        for row in group:
            epoch = {"last": "last epoch"}.get(row.theirs.protocol["epoch"], row.theirs.protocol["epoch"])
            lines.append(f"  {row.theirs.method}, {row.theirs.backbone}: {row.figure} % (epoch: {epoch})")
            runs = f"{row.runs:,} run{'s' if row.runs > 1 else ''}"
            lines.append(f"    {runs}, {_hours_text(row.hours(tflops))}: {row.command}")
    files = len({row.file for row in matching})
    lines.append(f"{len(matching)} published rows, {files} files; hours of one GPU at {tflops:g} TFLOP/s")
    return "\n".join(lines)


def _hours_text(hours: float) -> str:
    if math.isnan(hours):
        return "hours unknown"
    return f"{hours:.1f} h" if hours < 48 else f"{hours:,.0f} h ({hours / 24:,.1f} days)"


def details(file: Path) -> str:
    """The head comments of a file and its bases, and its sources' statements about the rest of the protocol."""
    lines = []
    for path in _chain(file):
        head = [*takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())]
        if path == file or any("differ" in line.lower() for line in head):
            lines += [f"{path}:", *[f"  {line.removeprefix('#').removeprefix(' ')}" for line in head], ""]
    protocols: dict[tuple[str, ...], list[str]] = {}
    for theirs in named(load_sweep(file).published):
        stated = {factor: theirs.protocol[factor] for factor in FACTORS}
        statements = [f"  {FACTORS[path]}: {text}" for path, text in stated.items() if not text.startswith(SETTINGS_OF)]
        protocols.setdefault((theirs.source, *statements), []).append(theirs.method)
    for (source, *statements), methods in protocols.items():
        lines += [f"{', '.join(methods)}, by {source}:", *statements]
    return "\n".join(lines)


def _chain(file: Path) -> Iterator[Path]:
    """A file and its bases."""
    while file:
        yield file
        base = yaml.safe_load(file.read_text(encoding="utf-8")).get("_BASE_")
        file = base and Path(os.path.normpath(file.parent / base))


def perform(args: argparse.Namespace) -> None:
    print(_listed(args) if args.list else details(_file(args.name)))


def _listed(args: argparse.Namespace) -> str:
    matching = [row for row in rows(args.method, args.task) if args.paper.lower() in row.theirs.source.lower()]
    if not matching:
        raise ConfigError("no file repeats such a row: --list shows all rows")
    return table(matching, args.tflops)


def _file(name: str) -> Path:
    files = {file.stem: file for file in sorted(recipes().glob("*.yaml"))}
    if name not in files:
        near = difflib.get_close_matches(name, files, 3) or files
        raise ConfigError(
            f"{recipes()} has no {name}; {'known' if near is files else 'the nearest'}: {', '.join(near)}"
        )
    return files[name]
