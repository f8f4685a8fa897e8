"""Collecting run folders: each run's settings and result, and which folders cannot be used and why."""

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
    """Keys that never distinguish experiments; different images show in their number."""
    return {*may_move()} - {"MODEL.WEIGHT_PATH"}


class Unusable(ValueError):
    """A run folder that cannot be counted; the message says why."""


@dataclass(frozen=True)
class Run:
    """A finished run. Accuracies are fractions in [0, 1].

    Attributes:
        config: every key and its value.
        sweep: its sweep.json, {} for a run outside of sweeps.
        written: time of its result.json, seconds since 1970.
    """

    folder: Path
    config: dict[str, Any]
    result: dict
    sweep: dict
    written: float

    @cached_property
    def task(self) -> str:
        """The task's name; "folder" and "lists" may be any data, so they include the folder's name."""
        name = self.config["DATA.NAME"]
        if self.data["task"] in ("folder", "lists") and self.config["DATA.DATAPATH"]:
            return f"{self.data['task']} {Path(self.config['DATA.DATAPATH']).name}"
        return self.data["task"] or name

    @property
    def shots(self) -> int:
        """Training images per class, 0 for all; for few-shot tasks, 0 in the config means 16."""
        few = self.task in TASKS and TASKS[self.task].group == "few-shot"
        return self.config["DATA.SHOTS"] or (16 if few else 0)

    @property
    def data(self) -> dict:
        return self.result["data"]

    @property
    def facts(self) -> dict:
        """Its result with the complete config: keys missing in an old result had their default then."""
        return self.result | {"config": self.config}

    @property
    def method(self) -> str:
        return methods_label(self.config["MODEL.TRANSFER_TYPE"], self.config["FREQFIT"], " + ")

    @property
    def backbone(self) -> str:
        return self.config["DATA.FEATURE"]

    @property
    def tuning(self) -> bool:
        """Whether it only served to choose settings and did not use the test set."""
        return self.sweep.get("stage") == "tune" or self.result["test"] is None

    @property
    def accuracy(self) -> float:
        """The metric that papers report for the task: on the test set, or for tuning runs on validation images."""
        return self.result["val" if self.tuning else "test"][METRICS[self.data["metric"]]]

    @property
    def best_test_epoch(self) -> float | None:
        """The same for the epoch that was best on the test set, if the result has it."""
        best = self.result.get("test_best_epoch")
        return best[METRICS[self.data["metric"]]] if best else None

    @property
    def seed(self) -> str:
        """``42``, or ``SEED 42, DATA.SPLIT_SEED 1`` if the split is not the first."""
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
        """Training time, including the time to compute kept activations."""
        seconds = self.result["cost"]["seconds"]
        return seconds["train"] + seconds.get("features", 0.0)

    @property
    def activations(self) -> float | None:
        """Bytes of an image that training kept between forward and backward; None in results without them."""
        return self.result["cost"].get("activation_bytes_per_image")

    def value(self, key: str) -> Any:
        """The value of a config key, or the label on a sweep's own axis; None if there is no such axis."""
        if key in self.config:
            return self.config[key]
        return {**self.sweep.get("over", {}), **self.sweep.get("tuned", {})}.get(key)

    @cached_property
    def experiment(self) -> tuple:
        """The identity of the run: equal for two folders of the same run."""
        never = not_compared()
        own = {key: repr(value) for key, value in self.config.items() if key not in never}
        return (self.task, self.tuning, *sorted(own.items()))

    @property
    def place(self) -> tuple:
        """The sweep and cell it belongs to."""
        return self.sweep.get("sweep", ""), repr(sorted(self.sweep.get("over", {}).items()))


@dataclass
class Collection:
    """Collected runs, and the unused folders with the reason.

    Attributes:
        notes: remarks about used folders.
        configs: settings of unused folders with a readable config.
        plans: plans of sweeps, by OUTPUT_DIR and name.
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
    """All runs below ``places``, each once.

    Raises:
        FileNotFoundError: a place does not exist.
    """
    collection, defaults = Collection(), unnamed_values()
    for folder in sorted(_folders(places, collection)):
        try:
            collection.runs.append(_read(RunFolder(folder), defaults))
        except Unusable as why:
            collection.unused[folder] = str(why)
            with suppress(Unusable):
                collection.configs[folder] = {**defaults, **_yaml(folder / "config.yaml")}
    _once(collection)
    _plans_above(collection)
    return collection


def _folders(places: Iterable[Path], collection: Collection) -> set[Path]:
    """Folders with a config.yaml or result.json, each once despite links; also collects sweeps' plans."""
    seen: set[Path] = set()
    runs: set[Path] = set()

    def unreadable(error: OSError) -> None:
        collection.unused[Path(error.filename)] = f"the folder cannot be read: {error.strerror}"

    for place in places:
        if not Path(place).is_dir():
            raise FileNotFoundError(f"{place} is not a folder: name the folders with runs (OUTPUT_DIR)")
        for current, below, files in os.walk(Path(place).resolve(), followlinks=True, onerror=unreadable):
            folder = Path(current).resolve()
            if folder in seen:
                below.clear()
                continue
            seen.add(folder)
            if "config.yaml" in files or "result.json" in files:
                runs.add(folder)
            if folder.name == "sweeps":
                for name in files:
                    _plan(folder / name, collection)
    return runs


def _plan(path: Path, collection: Collection) -> None:
    """Keep a sweep's plan; ignore other files."""
    if path.suffix != ".json" or (path.parent.parent, path.stem) in collection.plans:
        return
    try:
        plan = read_json(path)
        if isinstance(plan, dict) and "cells" in plan:
            _ = [(c["row"], c["task"], list(c["seeds"]), c["over"], c["command"] + "") for c in plan["cells"]]
            _ = [(item["command"] + "", item["folder"], item["reason"]) for item in plan["failed"]]
            collection.plans[path.parent.parent, plan["sweep"]] = plan
    except (OSError, ValueError, KeyError, TypeError) as error:
        collection.unused[path] = f"the sweep's plan is broken: {_reason(error)}"


def _plans_above(collection: Collection) -> None:
    """Find the plans of the runs' sweeps if only a part of their OUTPUT_DIR was given."""
    for run in collection.runs:
        for folder in list(run.folder.parents)[:6] if run.sweep else ():
            if (folder, run.sweep["sweep"]) in collection.plans:
                break
            path = folder / "sweeps" / f"{run.sweep['sweep']}.json"
            if path.is_file():
                _plan(path, collection)
                break


def _read(folder: RunFolder, defaults: dict[str, Any]) -> Run:
    if not folder.config.is_file():
        raise Unusable("config.yaml is missing: not a run's folder, or incomplete")
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
        raise Unusable(f"result.json is broken: {_reason(error)}") from error
    return run


def _ended(folder: RunFolder) -> str:
    """Why a sweep ended the run before it had a result; "" if it did not."""
    if not folder.stopped.is_file():
        return ""
    about = _json(folder.stopped)
    return about.get("diverged") or f"stopped by asha after epoch {about.get('epoch')}"


def _check(run: Run) -> None:
    """Check every value that is used later."""
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
    numbers = (run.trained, run.trained_without_head, run.seconds, run.config["SEED"], run.shots, run.activations or 0)
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise Unusable("result.json is broken: parameters, seconds, seed or activations are not numbers")
    texts = (run.task, run.method, run.backbone, result["environment"]["git"])
    if not all(isinstance(text, str) for text in texts):
        raise Unusable("result.json is broken: a name is not a string")
    _ = (result["pixels"].items(), result["environment"]["packages"]["torch"], result["environment"]["device"])
    _ = (run.data["images"].items(), run.data["train_split"], result["precision"], run.data["version"])
    if run.sweep:
        for name, kind in {"sweep": str, "stage": str, "row": str, "over": dict, "tuned": dict}.items():
            if not isinstance(run.sweep.get(name), kind):
                raise Unusable(f"{SWEEP} is broken: {name} is {run.sweep.get(name)!r}")
        if not isinstance(run.sweep.get("task_axes", []), list):  # absent in old files
            raise Unusable(f"{SWEEP} is broken: task_axes is {run.sweep['task_axes']!r}")


def _fraction(value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # excludes NaN
        raise Unusable(f"its {what} is {value!r}, not a fraction between 0 and 1")


def _json(path: Path) -> dict:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path.name} is broken: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise Unusable(f"{path.name} is broken: it holds {type(content).__name__}, not an object")
    return content


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return _settings(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Unusable(f"{path.name} is broken: {_reason(error)}") from error


def _settings(text: str) -> dict[str, Any]:
    """Key -> value. Thousands of runs share the same MODEL section, so each distinct section is parsed only once."""
    try:
        return {key: value for part in re.split(r"\n(?=\w)", text) for key, value in _section(part).items()}
    except (ValueError, yaml.YAMLError):  # a section may not be valid on its own
        return _section(text)


@lru_cache(maxsize=4096)
def _section(text: str) -> dict[str, Any]:
    content = yaml.load(text, _Loader)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError("it holds no settings")
    return flatten(content)


def _reason(error: Exception) -> str:
    text = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _once(collection: Collection) -> None:
    """Of several folders with the same run, use the newest; prefer a sweep's run to the same run outside of it."""
    newest: dict[tuple, Run] = {}
    for run in sorted(collection.runs, key=lambda run: (run.written, str(run.folder))):
        if older := newest.get((run.experiment, run.place)):
            set_aside(collection, older, run, "the same settings and seed as")
        newest[run.experiment, run.place] = run
    in_sweeps = {run.experiment: run for run in newest.values() if run.sweep}
    for run in newest.values():
        if not run.sweep and run.experiment in in_sweeps:
            set_aside(collection, run, in_sweeps[run.experiment], "the same settings and seed as")
    drop_unused(collection)


def drop_unused(collection: Collection) -> None:
    collection.runs = [run for run in collection.runs if run.folder not in collection.unused]


def set_aside(collection: Collection, other: Run, counts: Run, why: str) -> None:
    """Do not use ``other``; if the accuracies differ, note it for both."""
    age = "newer" if counts.written >= other.written else "a sweep's"
    differ = other.accuracy != counts.accuracy
    difference = f", where the accuracy is {100 * counts.accuracy:.2f} %" if differ else ""
    collection.unused[other.folder] = f"{why} {counts.folder}, which is {age} and counts{difference}"
    if differ:
        collection.notes[counts.folder] = (
            f"{why} {other.folder}, where the accuracy is {100 * other.accuracy:.2f} % instead of "
            f"{100 * counts.accuracy:.2f} %; this one is {age} and counts"
        )
