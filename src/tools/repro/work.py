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
from ...configs.files import ConfigError
from ...data.tasks import find_task
from ...utils.shipped import shipped
from ..report.protocol import FACTORS, SETTINGS_OF
from ..report.published import GROUPS, Published, named
from ..tune.arithmetic import speed
from ..tune.estimate import published_sizes
from ..tune.points import Point, points
from ..tune.spec import Choice, Sweep, label, load_sweep

MEANS = ("mean of 3 groups", "mean of 19 tasks", "mean of 5 tasks")
# Keys that change no arithmetic, or whose effect is counted apart.
NO_MATTER = ("DATA.NAME", "SEED", "SOLVER.BASE_LR", "SOLVER.WEIGHT_DECAY")


@dataclass(frozen=True)
class Row:
    """A published row that a file repeats.

    Attributes:
        theirs: the published figures.
        sweep: what of the file's sweep makes it.
        command: which runs that.
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
        """On one GPU, by arithmetic; nan where the number of images is not known."""
        return sum(self._seconds(choices, found, tflops) for choices, found, _ in self._parts()) / 3600

    @property
    def figure(self) -> str:
        """The means that the row has, or its tasks' figures."""
        values, tasks = self.theirs.values, self.tasks
        names = [name for name in MEANS if name in values and len(tasks) > 4]
        names = names or [name for name in (tasks if len(tasks) < 5 else GROUPS) if name in values]
        return ", ".join(f"{name} {values[name]:.1f}" for name in names) or "-"

    def _parts(self) -> Iterator[tuple[tuple[Choice, ...], list[Point], int]]:
        """Of every cell: its choices, its points, and how many of them are tuning runs."""
        for choices in _cells(self.sweep):
            found = points(self.sweep.tune | {k: axis for one in choices for k, axis in one.tune.items()}, self.sweep)
            yield choices, found, len(found) if len(found) > 1 else 0

    def _seconds(self, choices: tuple[Choice, ...], found: list[Point], tflops: float) -> float:
        """Of a cell: its tuning runs as the middle one of them, and the tested ones."""
        settings = {key: value for one in choices for key, value in one.settings.items()}
        settings |= self.sweep.cells.get(tuple(label(one) for one in choices), {}) | found[len(found) // 2][1]
        final = self._run(settings | self.sweep.final, tflops) * len(self.sweep.seeds)
        return final + (self._run(settings | self.sweep.tuning, tflops) * len(found) if len(found) > 1 else 0.0)

    def _run(self, settings: dict, tflops: float) -> float:
        said = {key: value for key, value, _ in self.sweep.settings}
        task = find_task((said | settings)["DATA.NAME"])
        own = {key: value for key, value in settings.items() if key not in NO_MATTER and not key.endswith(".SCALE")}
        cfg = _cfg(json.dumps({"DATA.NAME": task.name} | said | own))
        sizes = published_sizes(cfg, task)
        return speed(cfg, task, tflops * 1e12).seconds(cfg, sizes) if sizes else math.nan


@cache
def _cfg(settings: str) -> CfgNode:
    """The config that JSON text has the settings of; many runs differ in nothing that matters here."""
    return load_settings([(key, value, "the file") for key, value in json.loads(settings).items()], [], quiet=True)


def recipes() -> Path:
    """The folder configs/repro: one's own below the current folder, else the one that came with ViTune."""
    own = Path("configs/repro")
    return own if own.is_dir() else shipped("configs") / "repro"


def rows(method: str = "", task: str = "", folder: Path | None = None) -> list[Row]:
    """Every published row that a file of ``folder`` repeats.

    Args:
        method: only rows of methods with this in their name.
        task: only this one of each row's tasks.
        folder: None: ``recipes()``.

    Raises:
        ValueError: an unknown task, or a file with problems.
    """
    task = find_task(task).name if task else ""
    found = []
    for file in sorted((folder or recipes()).glob("*.yaml")):
        sweep = load_sweep(file)
        for theirs in named(sweep.published):
            if method.lower() in theirs.method.lower() and (row := _row(file, sweep, theirs, task)):
                found.append(row)
    return found


def _row(file: Path, sweep: Sweep, theirs: Published, task: str) -> Row | None:
    """What of ``sweep`` makes ``theirs``; None if it has none of ``task``."""
    chosen = {}
    if "method" in sweep.over:
        chosen["method"] = [one for one in sweep.over["method"] if one.label == theirs.method]
    for axis in sweep.task_axes if task else ():
        chosen[axis] = [one for one in sweep.over[axis] if find_task(one.settings["DATA.NAME"]).name == task]
    if task and not sweep.task_axes and find_task(dict((k, v) for k, v, _ in sweep.settings)["DATA.NAME"]).name != task:
        return None
    if not all(chosen.values()):
        return None
    parts = [part for axis, some in chosen.items() if len(some) < len(sweep.over[axis]) for part in _pair(axis, some)]
    command = shlex.join(["python", "-m", "src.tools.tune", "--config-file", str(file), *parts])
    return Row(file, theirs, replace(sweep, over=sweep.over | chosen), command)


def _pair(axis: str, choices: list[Choice]) -> tuple[str, str]:
    """The setting that leaves an axis only these choices."""
    listed = yaml.safe_dump([one.label for one in choices], default_flow_style=True, width=math.inf)
    return f"SWEEP.OVER.{axis}", listed.strip()


def _cells(sweep: Sweep) -> Iterator[tuple[Choice, ...]]:
    return product(*sweep.over.values())


def _task(sweep: Sweep, choices: tuple[Choice, ...]) -> Iterator[str]:
    said = {key: value for key, value, _ in sweep.settings} | {k: v for one in choices for k, v in one.settings.items()}
    yield find_task(said["DATA.NAME"]).name


def table(found: list[Row], tflops: float) -> str:
    """For each file and source the rows: what is published, runs, hours and the command."""
    lines = []
    place = attrgetter("file", "theirs.source")
    for (file, source), group in groupby(sorted(found, key=place), place):
        lines.append(f"{file}: {source}")
        for row in group:
            epoch = {"last": "last epoch"}.get(row.theirs.protocol["epoch"], row.theirs.protocol["epoch"])
            lines.append(f"  {row.theirs.method}, {row.theirs.backbone}: {row.figure} % (epoch: {epoch})")
            runs = f"{row.runs:,} run{'s' if row.runs > 1 else ''}"
            lines.append(f"    {runs}, {_said(row.hours(tflops))}: {row.command}")
    files = len({row.file for row in found})
    lines.append(f"{len(found)} published rows, {files} files; hours of one GPU at {tflops:g} TFLOP/s")
    return "\n".join(lines)


def _said(hours: float) -> str:
    if math.isnan(hours):
        return "hours unknown"
    return f"{hours:.1f} h" if hours < 48 else f"{hours:,.0f} h ({hours / 24:,.1f} days)"


def details(file: Path) -> str:
    """What the heads of a file and of its bases say, and what its sources state of the rest of the protocol."""
    lines = []
    for one in _chain(file):
        head = [*takewhile(lambda line: line.startswith("#"), one.read_text(encoding="utf-8").splitlines())]
        if one == file or any("differ" in line.lower() for line in head):
            lines += [f"{one}:", *[f"  {line.removeprefix('#').removeprefix(' ')}" for line in head], ""]
    protocols: dict[tuple[str, ...], list[str]] = {}
    for theirs in named(load_sweep(file).published):
        stated = {factor: theirs.protocol[factor] for factor in FACTORS}
        said = [f"  {FACTORS[one]}: {text}" for one, text in stated.items() if not text.startswith(SETTINGS_OF)]
        protocols.setdefault((theirs.source, *said), []).append(theirs.method)
    for (source, *said), methods in protocols.items():
        lines += [f"{', '.join(methods)}, by {source}:", *said]
    return "\n".join(lines)


def _chain(file: Path) -> Iterator[Path]:
    """A file and those that it is based on."""
    while file:
        yield file
        base = yaml.safe_load(file.read_text(encoding="utf-8")).get("_BASE_")
        file = base and Path(os.path.normpath(file.parent / base))


def perform(args: argparse.Namespace) -> None:
    print(_listed(args) if args.list else details(_file(args.name)))


def _listed(args: argparse.Namespace) -> str:
    found = [row for row in rows(args.method, args.task) if args.paper.lower() in row.theirs.source.lower()]
    if not found:
        raise ConfigError("no file repeats such a row: --list alone shows all that can be")
    return table(found, args.tflops)


def _file(name: str) -> Path:
    known = {file.stem: file for file in sorted(recipes().glob("*.yaml"))}
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or known
        raise ConfigError(
            f"{recipes()} has no {name}; {'known' if near is known else 'the nearest'}: {', '.join(near)}"
        )
    return known[name]
