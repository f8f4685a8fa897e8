"""Sweep files: a run's settings, and a section SWEEP with axes, protocol and seeds.

The section's keys, defaults and meanings are in ``DEFAULTS``. An axis is a config key with its values, or a new name
whose labels stand for settings; either may be among the axes of the table (OVER) or among those chosen by validation
(TUNE).
"""

import difflib
import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...configs.config import ConfigError, Setting, file_settings, pair_settings
from ...data.tasks import GROUPS, TASKS, find_task
from ...utils.yaml import read_value

SEEDS = [42, 44, 82, 100, 800]  # VPT's and FreqFiT's

DEFAULTS: dict[str, Any] = {
    # "select": tune on validation images, then train with every seed and test once; "fixed": only the latter.
    "PROTOCOL": "select",
    # Axes of the table: every combination of their values is a cell, tuned separately.
    "OVER": {},
    # Settings of single cells, such as published ones: nested by the values or labels of OVER's axes, in order.
    # If there are any, every cell needs its own.
    "CELLS": {},
    # Axes tuned in every cell, by validation accuracy.
    "TUNE": {},
    # Seeds of the tested runs; an entry may also be settings: {SEED: 1, DATA.SPLIT_SEED: 1}.
    "SEEDS": SEEDS,
    # "grid": all points; "random": SAMPLES of them; "asha": the same, with worse ones stopped early.
    "SEARCH": "grid",
    # Number of points per cell for random and asha.
    "SAMPLES": 16,
    # Seed for drawing the points; cells with the same axes get the same points.
    "SEARCH_SEED": 0,
    # asha: after MIN_EPOCHS, FACTOR times as many, and so on, only the best 1 / FACTOR of the points continue.
    "ASHA": {"MIN_EPOCHS": 5, "FACTOR": 3},
    # Settings of tuning runs only.
    "TUNING": {"DATA.TRAIN_SPLIT": "train", "DATA.NO_TEST": True},
    # Settings of tested runs only.
    "FINAL": {},
    # The published figures that the sweep repeats, for the report.
    "PUBLISHED": {},
}
CHOICES = {"PROTOCOL": ("select", "fixed"), "SEARCH": ("grid", "random", "asha")}
RANGES = ("uniform", "log_uniform", "integer")


@dataclass(frozen=True)
class Choice:
    """A value of an axis: its settings, and further axes that come with it."""

    label: Any
    settings: dict[str, Any]
    tune: "dict[str, Axis]" = field(default_factory=dict)


@dataclass(frozen=True)
class Range:
    """Values of ``key`` between two bounds, drawn at random: "uniform", "log_uniform" or "integer"."""

    key: str
    kind: str
    low: float
    high: float

    def draw(self, rng) -> Choice:
        if self.kind == "integer":
            value = int(rng.integers(int(self.low), int(self.high) + 1))
        elif self.kind == "uniform":
            value = float(rng.uniform(self.low, self.high))
        else:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        value = value if self.kind == "integer" else float(f"{value:.4g}")
        return Choice(value, {self.key: value})


Axis = list[Choice] | Range


@dataclass(frozen=True)
class Seed:
    """Settings of one repetition, and its label: "42", or "SEED 1, DATA.SPLIT_SEED 1"."""

    label: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep file with the changes of the command line; see ``DEFAULTS``."""

    name: str
    settings: list[Setting]
    protocol: str
    over: dict[str, list[Choice]]
    cells: dict[tuple[str, ...], dict[str, Any]]
    tune: dict[str, Axis]
    seeds: list[Seed]
    search: str
    samples: int
    search_seed: int
    min_epochs: int
    factor: int
    tuning: dict[str, Any]
    final: dict[str, Any]
    published: dict[str, Any]

    @property
    def task_axes(self) -> list[str]:
        """Axes of OVER whose values are tasks, possibly with settings: columns of the table, not rows."""
        return [name for name, axis in self.over.items() if all("DATA.NAME" in choice.settings for choice in axis)]


def load_sweep(config_file: str | Path, overrides: list[str] = ()) -> Sweep:
    """The sweep of a file with KEY VALUE pairs on top; a KEY that is an axis gets only that value.

    Raises:
        ConfigError: the file cannot be read, or SWEEP has unknown or invalid entries; all problems at once.
    """
    problems: list[str] = []
    settings, section = file_settings(config_file, problems, section="SWEEP")
    if not section and not problems:
        problems.append(f"{config_file} has no section SWEEP: run it with vitune train {config_file}")
    sweep = DEFAULTS | {"OVER": {}, "TUNE": {}} | _known_keys(section, DEFAULTS, "SWEEP", problems)
    _require_axes(sweep, problems)
    pairs = pair_settings(overrides, problems)
    for key, value, _ in pairs:
        if key.startswith("SWEEP."):
            _override(sweep, key.removeprefix("SWEEP."), value, problems)
            _require_axes(sweep, problems)
    plain = [(key, value, where) for key, value, where in pairs if not key.startswith("SWEEP.")]
    cells = _cells(sweep["CELLS"], len(sweep["OVER"]), problems)
    for key, value, _ in plain:
        _fix(sweep, key, value, problems)
        if any(key in own for own in cells.values()):
            problems.append(f"{key} is set by SWEEP.CELLS for each cell: change it there")
    settings += [setting for setting in plain if not any(setting[0] in sweep[name] for name in ("OVER", "TUNE"))]
    for name, allowed in CHOICES.items():
        if sweep[name] not in allowed:
            problems.append(f"SWEEP.{name} is {sweep[name]!r}; known: {', '.join(allowed)}")
    for name, lowest in (("SAMPLES", 1), ("SEARCH_SEED", 0)):
        if type(sweep[name]) is not int or sweep[name] < lowest:
            problems.append(f"SWEEP.{name} is {sweep[name]!r}; it must be an integer of at least {lowest}")
    asha = DEFAULTS["ASHA"] | _known_keys(sweep["ASHA"], DEFAULTS["ASHA"], "SWEEP.ASHA", problems)
    for name, lowest in (("MIN_EPOCHS", 1), ("FACTOR", 2)):
        if type(asha[name]) is not int or asha[name] < lowest:
            problems.append(f"SWEEP.ASHA.{name} is {asha[name]!r}; it must be an integer of at least {lowest}")
    over, tune = _axes(sweep["OVER"], "SWEEP.OVER", problems), _axes(sweep["TUNE"], "SWEEP.TUNE", problems)
    if cells and not problems:
        problems += [f"SWEEP.CELLS has no settings for {', '.join(own)}" for own in labels(over) if own not in cells]
    problems += [f"SWEEP.OVER {name} is a range; a table needs a list of values" for name in over if _range(over[name])]
    ranges = [name for name, axis in _all_axes(over, tune) if _range(axis)]
    if sweep["SEARCH"] == "grid" and ranges:
        problems.append(f"{', '.join(ranges)}: a range needs SWEEP.SEARCH random or asha; a grid needs a list")
    problems += [f"{name} is an axis of both SWEEP.OVER and SWEEP.TUNE" for name in over.keys() & tune.keys()]
    if sweep["PROTOCOL"] == "fixed" and (unused := [name for name, _ in _all_axes({}, tune)]):
        problems.append(f"SWEEP.PROTOCOL fixed chooses nothing, but SWEEP.TUNE has {', '.join(unused)}")
    for name in ("TUNING", "FINAL", "PUBLISHED"):
        if not isinstance(sweep[name], dict):
            problems.append(f"SWEEP.{name} is {sweep[name]!r}; it must be keys and values")
    seeds = _seeds(sweep["SEEDS"], problems)
    if problems:
        raise ConfigError("the sweep has problems:\n" + "\n".join(f"  - {p}" for p in dict.fromkeys(problems)))
    return Sweep(
        name=Path(config_file).stem,
        settings=settings,
        protocol=sweep["PROTOCOL"],
        over=over,
        cells=cells,
        tune=tune,
        seeds=seeds,
        search=sweep["SEARCH"],
        samples=sweep["SAMPLES"],
        search_seed=sweep["SEARCH_SEED"],
        min_epochs=asha["MIN_EPOCHS"],
        factor=asha["FACTOR"],
        tuning=sweep["TUNING"],
        final=sweep["FINAL"],
        published=sweep["PUBLISHED"],
    )


def labels(over: dict[str, list[Choice]]) -> Iterator[tuple[str, ...]]:
    """The values or labels of every cell on the axes of OVER, as in ``Sweep.cells``."""
    yield from itertools.product(*([label(choice) for choice in axis] for axis in over.values()))


def label(choice: Choice) -> str:
    """The label by which a cell's settings are found: for a task, our name rather than the file's."""
    if choice.settings == {"DATA.NAME": choice.label}:
        with suppress(ValueError):
            return find_task(str(choice.label)).name
    return str(choice.label)


def _cells(content: Any, depth: int, problems: list[str], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict]:
    """Settings nested ``depth`` deep -> labels of a cell: its settings."""
    if not isinstance(content, dict):
        where = " ".join(("SWEEP.CELLS", *above))
        problems.append(f"{where} is {content!r}; it must be settings, nested by the {depth} axes of SWEEP.OVER")
        return {}
    if len(above) == depth:
        return {above: content}
    cells = {}
    for name, below in content.items():
        cells |= _cells(below, depth, problems, (*above, str(name)))
    return cells


def _known_keys(section: Any, defaults: dict, where: str, problems: list[str]) -> dict:
    """``section`` without unknown keys, which are reported."""
    if not isinstance(section, dict):
        problems.append(f"{where} is {section!r}; it must have keys: {', '.join(defaults)}")
        return {}
    for key in [key for key in section if key not in defaults]:
        near = difflib.get_close_matches(str(key), defaults, n=1)
        problems.append(f"unknown key {where}.{key}" + (f"; did you mean {where}.{near[0]}?" if near else ""))
    return {key: value for key, value in section.items() if key in defaults and value is not None}


def _require_axes(section: dict, problems: list[str]) -> None:
    for name in ("OVER", "TUNE"):
        if not isinstance(section[name], dict):
            problems.append(f"SWEEP.{name} is {section[name]!r}; it must be axes and their values")
            section[name] = {}


def _override(section: dict, key: str, value: Any, problems: list[str]) -> None:
    """Override a key of SWEEP: ``SWEEP.SEEDS "[42, 44]"``, ``SWEEP.OVER.DATA.NAME "[dtd, pets]"``.

    Labels of an own axis are selected with ``SWEEP.OVER.method "[lora]"``, or replaced with ``SWEEP.OVER.method
    "{lora: , mine: {MODEL.LORA.RANK: 2}}"``, where a label without settings keeps those of the file.
    """
    name, _, rest = key.partition(".")
    if name not in DEFAULTS or (rest and not isinstance(DEFAULTS[name], dict)):
        near = difflib.get_close_matches(name, DEFAULTS, n=1)
        problems.append(f"unknown key SWEEP.{key}" + (f"; did you mean SWEEP.{near[0]}?" if near else ""))
        return
    try:
        value = read_value(value)
    except yaml.YAMLError as error:
        problems.append(f"SWEEP.{key} {value!r} cannot be read: {error}")
        return
    if not rest:
        section[name] = value
        return
    if not isinstance(section[name], dict):
        problems.append(f"SWEEP.{name} is {section[name]!r}; it has no {rest}")
        return
    own = section[name].get(rest)
    if isinstance(value, dict) and isinstance(own, dict) and not _looks_like_range(own):
        file = {str(label): entry for label, entry in own.items()}
        value = {label: file.get(str(label)) if entry is None else entry for label, entry in value.items()}
    elif name in ("OVER", "TUNE") and isinstance(own, dict) and not _looks_like_range(own):
        labels = {str(label): label for label in own}
        wanted = [str(label) for label in (value if isinstance(value, list) else [value])]
        if unknown := [label for label in wanted if label not in labels]:
            problems.append(f"SWEEP.{key} has no {', '.join(unknown)}; known: {', '.join(labels)}")
        value = {labels[label]: own[labels[label]] for label in wanted if label in labels}
    elif name in ("OVER", "TUNE") and not isinstance(value, (list, dict)):
        value = [value]
    section[name] = {**section[name], rest: value}


def _fix(section: dict, key: str, value: Any, problems: list[str]) -> None:
    """Set an axis to the value of the command line, or report that an own axis sets this key."""
    for name in ("OVER", "TUNE"):
        for axis, content in section[name].items():
            if axis == key:
                section[name] = {**section[name], key: [value]}
            elif isinstance(content, dict) and any(isinstance(e, dict) and key in e for e in content.values()):
                problems.append(f'{key} is set by the axis {axis}: choose from it with SWEEP.{name}.{axis} "[...]"')


def _axes(section: Any, where: str, problems: list[str]) -> dict[str, Axis]:
    if not isinstance(section, dict):
        problems.append(f"{where} is {section!r}; it must be axes and their values")
        return {}
    return {str(name): _axis(str(name), content, where, problems) for name, content in section.items()}


def _axis(name: str, content: Any, where: str, problems: list[str]) -> Axis:
    if _looks_like_range(content):
        ((kind, bounds),) = content.items()
        good = isinstance(bounds, list) and len(bounds) == 2
        try:
            low, high = (float(bound) for bound in bounds) if good else (0.0, 0.0)
        except (TypeError, ValueError):
            low, high = 0.0, 0.0
        if not low < high or (kind == "log_uniform" and low <= 0):
            positive = " above 0" if kind == "log_uniform" else ""
            problems.append(f"{where} {name}: {kind} is {bounds!r}; it must be [lowest, highest]{positive}")
        return Range(name, kind, low, high)
    if isinstance(content, dict):
        choices = [_own(name, label, entry, where, problems) for label, entry in content.items()]
    elif isinstance(content, list):
        choices = [Choice(value, {name: value}) for value in _expanded(name, content)]
    else:
        problems.append(f"{where} {name} is {content!r}; it must be a list of values, or labels and their settings")
        return []
    if not choices:
        problems.append(f"{where} {name} is empty: the sweep has no runs")
    labels = [str(choice.label) for choice in choices]
    for twice in dict.fromkeys(label for label in labels if labels.count(label) > 1):
        problems.append(f"{where} {name} has {twice} twice")
    return choices


def _own(axis: str, label: Any, entry: Any, where: str, problems: list[str]) -> Choice:
    """A label of an own axis: its settings, and separately the axes that come with it."""
    if entry is None:
        return Choice(label, {})
    if not isinstance(entry, dict):
        problems.append(f"{where} {axis}: {label} is {entry!r}; it must be settings, such as {{SOLVER.BASE_LR: 0.1}}")
        return Choice(label, {})
    settings = {key: value for key, value in entry.items() if key != "TUNE"}
    return Choice(label, settings, _axes(entry.get("TUNE") or {}, f"{where} {axis}, {label}: TUNE", problems))


def _expanded(key: str, values: list) -> list:
    """Groups of tasks expanded: [vtab-1k, digits] -> 19 names and digits."""
    if key != "DATA.NAME":
        return values
    names = []
    for value in values:
        groups = GROUPS.get(str(value).lower().replace("_", "-"))
        names += [task.name for task in TASKS.values() if task.group in groups] if groups else [value]
    return names


def _seeds(content: Any, problems: list[str]) -> list[Seed]:
    seeds = []
    for entry in content if isinstance(content, list) else [content]:
        if isinstance(entry, dict) and entry:
            seeds.append(Seed(", ".join(f"{key} {value}" for key, value in entry.items()), entry))
        elif isinstance(entry, int) and not isinstance(entry, bool):
            seeds.append(Seed(str(entry), {"SEED": entry}))
        else:
            problems.append(f"SWEEP.SEEDS has {entry!r}; it must list integers, or settings such as {{SEED: 1}}")
    labels = [seed.label for seed in seeds]
    if not seeds:
        problems.append("SWEEP.SEEDS is empty: nothing would be tested")
    problems += [f"SWEEP.SEEDS has {label} twice" for label in dict.fromkeys(labels) if labels.count(label) > 1]
    return seeds


def _looks_like_range(content: Any) -> bool:
    return isinstance(content, dict) and len(content) == 1 and next(iter(content)) in RANGES


def _range(axis: Axis) -> bool:
    return isinstance(axis, Range)


def _all_axes(over: dict[str, Axis], tune: dict[str, Axis]) -> Iterator[tuple[str, Axis]]:
    """The tuned axes, including those that come with an entry of another."""
    yield from tune.items()
    for axis in (*over.values(), *tune.values()):
        for choice in axis if isinstance(axis, list) else ():
            yield from choice.tune.items()
