"""Run folders below given folders: what each run was, what came of it, and which of them cannot be used, and why."""

import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from ...configs.config import flatten, unnamed_values
from ...configs.facts import methods_label
from ...data.tasks import TASKS
from ...engine.evaluator import METRICS
from ...engine.results import RunFolder, may_move
from ...utils.io import read_json

# What a task's metric is called in result.json (engine/evaluator.py).
SWEEP = "sweep.json"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def not_compared() -> set[str]:
    """Keys that never make two runs different experiments; which images there were is seen from their numbers."""
    return {*may_move()} - {"MODEL.WEIGHT_PATH"}


class Unusable(ValueError):
    """A run folder that cannot be counted; the message says why."""


@dataclass(frozen=True)
class Run:
    """A finished run. Accuracies are fractions in [0, 1].

    Attributes:
        config: every key and its value.
        sweep: its sweep.json, {} for a run that no sweep made.
        written: time of its result.json, seconds since 1970.
    """

    folder: Path
    config: dict[str, Any]
    result: dict
    sweep: dict
    written: float

    @cached_property
    def task(self) -> str:
        """The task's name; "folder" and "lists" are any data, told apart by their folders."""
        name = self.config["DATA.NAME"]
        if self.data["task"] in ("folder", "lists") and self.config["DATA.DATAPATH"]:
            return f"{self.data['task']} {Path(self.config['DATA.DATAPATH']).name}"
        return self.data["task"] or name

    @property
    def shots(self) -> int:
        """Training images of each class, 0 for all; few-shot tasks take 16 where the config says 0."""
        few = self.task in TASKS and TASKS[self.task].group == "few-shot"
        return self.config["DATA.SHOTS"] or (16 if few else 0)

    @property
    def data(self) -> dict:
        return self.result["data"]

    @property
    def facts(self) -> dict:
        """Its result, with the whole config: what is not said in a result had a default of its own time."""
        return self.result | {"config": self.config}

    @property
    def method(self) -> str:
        return methods_label(self.config["MODEL.TRANSFER_TYPE"], self.config["FREQFIT"], " + ")

    @property
    def backbone(self) -> str:
        return self.config["DATA.FEATURE"]

    @property
    def tuning(self) -> bool:
        """Whether it was made to choose settings and did not read the test set."""
        return self.sweep.get("stage") == "tune" or self.result["test"] is None

    @property
    def accuracy(self) -> float:
        """What papers report of the task: of the test set, of a tuning run of the validation images."""
        return self.result["val" if self.tuning else "test"][METRICS[self.data["metric"]]]

    @property
    def best_test_epoch(self) -> float | None:
        """The same of the epoch that was best on the test set, where a result holds that."""
        best = self.result.get("test_best_epoch")
        return best[METRICS[self.data["metric"]]] if best else None

    @property
    def seed(self) -> str:
        """``42``, or ``SEED 42, DATA.SPLIT_SEED 1`` where the split is not the first."""
        split = self.config["DATA.SPLIT_SEED"]
        return f"SEED {self.config['SEED']}, DATA.SPLIT_SEED {split}" if split else str(self.config["SEED"])

    @property
    def trained(self) -> int:
        """Trained parameters with the head."""
        return self.result["parameters"]["trained"]

    @property
    def trained_without_head(self) -> int:
        return self.trained - self.result["parameters"]["head"]

    @property
    def seconds(self) -> float:
        """Training time, computing kept activations included."""
        seconds = self.result["cost"]["seconds"]
        return seconds["train"] + seconds.get("features", 0.0)

    def value(self, key: str) -> Any:
        """Of a config key, or the label on an axis of its sweep's own; None where there is no such axis."""
        if key in self.config:
            return self.config[key]
        return {**self.sweep.get("over", {}), **self.sweep.get("tuned", {})}.get(key)

    @cached_property
    def experiment(self) -> tuple:
        """What two folders with the same run have in common."""
        never = not_compared()
        own = {key: repr(value) for key, value in self.config.items() if key not in never}
        return (self.task, self.tuning, *sorted(own.items()))

    @property
    def place(self) -> tuple:
        """Which cell of which sweep it belongs to."""
        return self.sweep.get("sweep", ""), repr(sorted(self.sweep.get("over", {}).items()))


@dataclass
class Collection:
    """What was found: runs that count, and folders that do not, each with the reason.

    Attributes:
        notes: of a folder that counts, what is to be said about it.
        configs: of unused folders whose config can be read: their settings.
        plans: sweeps' plans, by the folder of their runs and their name.
    """

    runs: list[Run] = field(default_factory=list)
    unused: dict[Path, str] = field(default_factory=dict)
    notes: dict[Path, str] = field(default_factory=dict)
    configs: dict[Path, dict] = field(default_factory=dict)
    plans: dict[tuple[Path, str], dict] = field(default_factory=dict)

    @property
    def tests(self) -> list[Run]:
        return [run for run in self.runs if not run.tuning]

    @property
    def tuning(self) -> list[Run]:
        return [run for run in self.runs if run.tuning]


def collect(places: Iterable[Path]) -> Collection:
    """Every run below ``places``, once each.

    Raises:
        FileNotFoundError: a place does not exist.
    """
    found, defaults = Collection(), unnamed_values()
    for folder in sorted(_folders(places, found)):
        try:
            found.runs.append(_read(RunFolder(folder), defaults))
        except Unusable as why:
            found.unused[folder] = str(why)
            with suppress(Unusable):
                found.configs[folder] = {**defaults, **_yaml(folder / "config.yaml")}
    _once(found)
    _plans_above(found)
    return found


def _folders(places: Iterable[Path], found: Collection) -> set[Path]:
    """Folders with a config.yaml or a result.json, each once whatever links lead to it; sweeps' plans beside them."""
    seen: set[Path] = set()
    runs: set[Path] = set()

    def unreadable(error: OSError) -> None:
        found.unused[Path(error.filename)] = f"the folder cannot be read: {error.strerror}"

    for place in places:
        if not Path(place).is_dir():
            raise FileNotFoundError(f"{place} is no folder: name the folder(s) where runs were written (OUTPUT_DIR)")
        for here, below, files in os.walk(Path(place).resolve(), followlinks=True, onerror=unreadable):
            folder = Path(here).resolve()
            if folder in seen:
                below.clear()
                continue
            seen.add(folder)
            if "config.yaml" in files or "result.json" in files:
                runs.add(folder)
            if folder.name == "sweeps":
                for name in files:
                    _plan(folder / name, found)
    return runs


def _plan(path: Path, found: Collection) -> None:
    """Keep a sweep's plan; other files of that folder are not ours."""
    if path.suffix != ".json" or (path.parent.parent, path.stem) in found.plans:
        return
    try:
        plan = read_json(path)
        if isinstance(plan, dict) and "cells" in plan:
            _ = [(c["row"], c["task"], list(c["seeds"]), c["over"], c["command"] + "") for c in plan["cells"]]
            _ = [(item["command"] + "", item["folder"], item["reason"]) for item in plan["failed"]]
            found.plans[path.parent.parent, plan["sweep"]] = plan
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.unused[path] = f"the sweep's plan is broken: {_said(error)}"


def _plans_above(found: Collection) -> None:
    """The plans of sweeps whose runs were found, where only a part of their OUTPUT_DIR was given."""
    for run in found.runs:
        for folder in list(run.folder.parents)[:6] if run.sweep else ():
            if (folder, run.sweep["sweep"]) in found.plans:
                break
            path = folder / "sweeps" / f"{run.sweep['sweep']}.json"
            if path.is_file():
                _plan(path, found)
                break


def _read(folder: RunFolder, defaults: dict[str, Any]) -> Run:
    if not folder.config.is_file():
        raise Unusable("config.yaml is missing: no run's folder, or not all of it")
    saved = _yaml(folder.config)
    if not folder.result.is_file():
        raise Unusable(_ended(folder) or "unfinished: there is no result.json")
    result = _json(folder.result)
    own = result.get("config")
    if not isinstance(own, dict) or not all(isinstance(key, str) for key in own):
        raise Unusable("result.json is broken: it has no config")
    sweep = _json(folder.path / SWEEP) if (folder.path / SWEEP).is_file() else {}
    run = Run(folder.path, {**defaults, **saved, **own}, result, sweep, folder.result.stat().st_mtime)
    try:
        _check(run)
    except (KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"result.json is broken: {_said(error)}") from error
    return run


def _ended(folder: RunFolder) -> str:
    """Why a sweep ended the run for good before it had a result; "": it did not."""
    if not folder.stopped.is_file():
        return ""
    about = _json(folder.stopped)
    return about.get("diverged") or f"stopped by asha after epoch {about.get('epoch')}"


def _check(run: Run) -> None:
    """Look at every value that is used later, so that nothing breaks there."""
    result, metric = run.result, run.data["metric"]
    if metric not in METRICS:
        raise Unusable(f"its metric {metric!r} is unknown; known: {', '.join(METRICS)}")
    for split in ("test", "val"):
        if result[split] is not None:
            _fraction(result[split].get(METRICS[metric]), f"{split} {metric}")
    if result["test"] is None and result["val"] is None:
        raise Unusable("it has neither a test nor a validation accuracy")
    if run.sweep.get("stage") == "tune" and result["val"] is None:
        raise Unusable("a tuning run without a validation accuracy")
    if run.sweep.get("stage") == "superseded":
        raise Unusable(f"its sweep, {run.sweep.get('sweep')}, has chosen other settings since")
    if best := result.get("test_best_epoch"):
        _fraction(best[METRICS[run.data["metric"]]], "test accuracy of the best test epoch")
    numbers = (run.trained, run.trained_without_head, run.seconds, run.config["SEED"], run.shots)
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise Unusable("result.json is broken: parameters, seconds or the seed are no numbers")
    texts = (run.task, run.method, run.backbone, result["environment"]["git"])
    if not all(isinstance(text, str) for text in texts):
        raise Unusable("result.json is broken: a name is no text")
    _ = (result["pixels"].items(), result["environment"]["packages"]["torch"], result["environment"]["device"])
    _ = (run.data["images"].items(), run.data["train_split"], result["precision"], run.data["version"])
    if run.sweep:
        for name, kind in {"sweep": str, "stage": str, "row": str, "over": dict, "tuned": dict}.items():
            if not isinstance(run.sweep.get(name), kind):
                raise Unusable(f"{SWEEP} is broken: {name} is {run.sweep.get(name)!r}")
        if not isinstance(run.sweep.get("task_axes", []), list):  # older ones have none
            raise Unusable(f"{SWEEP} is broken: task_axes is {run.sweep['task_axes']!r}")


def _fraction(value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is neither
        raise Unusable(f"its {what} is {value!r}, not a fraction between 0 and 1")


def _json(path: Path) -> dict:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path.name} is broken: {_said(error)}") from error
    if not isinstance(content, dict):
        raise Unusable(f"{path.name} is broken: it holds {type(content).__name__}, not an object")
    return content


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return _settings(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Unusable(f"{path.name} is broken: {_said(error)}") from error


def _settings(text: str) -> dict[str, Any]:
    """Key -> value. Thousands of runs have the same MODEL section: each section is parsed once."""
    try:
        return {key: value for part in re.split(r"\n(?=\w)", text) for key, value in _section(part).items()}
    except (ValueError, yaml.YAMLError):  # a part alone may say nothing, or not what it says in the whole
        return _section(text)


@lru_cache(maxsize=4096)
def _section(text: str) -> dict[str, Any]:
    content = yaml.load(text, _Loader)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError("it holds no settings")
    return flatten(content)


def _said(error: Exception) -> str:
    text = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _once(found: Collection) -> None:
    """Of several folders with the same run only the newest counts, and a sweep's before the same run made alone."""
    newest: dict[tuple, Run] = {}
    for run in sorted(found.runs, key=lambda run: (run.written, str(run.folder))):
        if older := newest.get((run.experiment, run.place)):
            set_aside(found, older, run, "the same settings and seed as")
        newest[run.experiment, run.place] = run
    in_sweeps = {run.experiment: run for run in newest.values() if run.sweep}
    for run in newest.values():
        if not run.sweep and run.experiment in in_sweeps:
            set_aside(found, run, in_sweeps[run.experiment], "the same settings and seed as")
    drop_unused(found)


def drop_unused(found: Collection) -> None:
    found.runs = [run for run in found.runs if run.folder not in found.unused]


def set_aside(found: Collection, other: Run, counts: Run, why: str) -> None:
    """Do not count ``other``; where the accuracies differ, that is said at both."""
    age = "newer" if counts.written >= other.written else "a sweep's"
    differ = other.accuracy != counts.accuracy
    difference = f", where the accuracy is {100 * counts.accuracy:.2f} %" if differ else ""
    found.unused[other.folder] = f"{why} {counts.folder}, which is {age} and counts{difference}"
    if differ:
        found.notes[counts.folder] = (
            f"{why} {other.folder}, where the accuracy is {100 * other.accuracy:.2f} % instead of "
            f"{100 * counts.accuracy:.2f} %; this one is {age} and counts"
        )
