"""Test sets for a finished run: its own, other tasks with the same classes, folders, and synthetic shifts."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode

from ...configs.config import ConfigError, get_cfg, keys_of
from ...configs.keys import SAMPLE, TASK
from ...data.loader import Loader
from ...data.opened import Data, open_data, open_test
from ...data.shifts import Shift, ShiftedLoader, parse_shift
from ...data.sources.base import DataError, FileSplit, Split
from ...data.sources.folder import class_folders, images_below, one_called, split_folders
from ...data.sources.names import match, plain
from ...data.sources.text import composed, read_json, read_text
from ...data.tasks import TASKS, find_task
from .run import FinishedRun

SPELLINGS = (composed, plain)


@dataclass(frozen=True)
class Wanted:
    """A requested test set: a task, a folder of class folders (``task`` is ""), or a shift."""

    name: str
    task: str = ""
    path: str = ""
    shift: Shift | None = None


@dataclass(frozen=True)
class TestSet:
    """Images with the run's labels.

    Attributes:
        classes: sorted labels of the classes that occur by design; None: all of them.
        keys: the images' names.
        about: source, version, number of images and classes, what was left out.
    """

    name: str
    loader: Loader | ShiftedLoader
    classes: torch.Tensor | None
    keys: list[str]
    about: dict

    __test__ = False  # not a test for pytest


def parse_sets(on: Sequence[str], shifts: Sequence[str]) -> list[Wanted]:
    """The test sets of ``--on`` and ``--shift``; nothing is read yet.

    Raises:
        ConfigError: a set is neither a task nor a folder, a shift is unknown, or a name occurs twice.
    """
    sets, problems = [], []
    for text in on:
        try:
            sets.append(_parse_set(text))
        except ValueError as error:
            problems.append(f"--on {text}: {error}")
    for text in shifts:
        try:
            shift = parse_shift(text)
            sets.append(Wanted(shift.name, shift=shift))
        except ValueError as error:
            problems.append(f"--shift: {error}")
    names = [entry.name for entry in sets]
    problems += [f"{name} is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if problems:
        raise ConfigError("the test sets have problems:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return sets


def _parse_set(text: str) -> Wanted:
    if Path(text).is_dir():
        return Wanted(Path(text).resolve().name, path=text)
    name, given, path = text.partition("=")
    path = str(Path(path).expanduser()) if path else ""
    if given and not Path(path).is_dir():
        raise ValueError(f"{path or 'nothing'} is not a folder")
    try:
        task = find_task(name)
    except ValueError as error:
        if path:
            return Wanted(name, path=path)
        raise ValueError(f"this is not a folder, and {error}") from error
    if task.name == "folder" and path:
        return Wanted(Path(path).resolve().name, path=path)
    if path and task.layouts[0].kind == "digits":
        raise ValueError(f"{task.name} is part of scikit-learn and not read from a folder: give your set another name")
    return Wanted(task.name, task.name, path)


def open_sets(
    run: FinishedRun, wanted: Sequence[Wanted], mapping: dict[str, str | None] | None = None
) -> list[TestSet]:
    """The run's own test set, then the others, with labels mapped to the run's.

    Args:
        mapping: their class name -> the run's, None to leave a class out.

    Raises:
        DataError: data are missing, or have classes that the run does not have.
    """
    own = own_set(run, "test")
    sets, classes = [own], Classes(run, mapping or {})
    for entry in wanted:
        if entry.shift is not None:
            about = own.about | {"shift": entry.shift.name}
            sets.append(replace(own, name=entry.name, loader=ShiftedLoader(own.loader, entry.shift), about=about))
        else:
            sets.append(_open_task(run, entry, classes) if entry.task else _open_folder(run, entry, classes))
    classes.require_used()
    return sets


def open_sets_of(
    runs: Sequence[FinishedRun], wanted: Sequence[Wanted], mapping: dict[str, str | None] | None = None
) -> list[list[TestSet]]:
    """``open_sets`` for every run; runs with the same images share them."""
    opened: dict[str, list[TestSet]] = {}
    sets = []
    for run in runs:
        images = repr((run.cfg.DATA, run.cfg.DEVICE, run.tuned.pixels, run.class_names))
        if images not in opened:
            opened[images] = open_sets(run, wanted, mapping)
        sets.append(opened[images])
    return sets


def own_set(run: FinishedRun, split: str) -> TestSet:
    """The run's own "test" or "val" images.

    Raises:
        DataError: it has none that it did not train on, or the data are not the run's.
    """
    data = open_data(for_evaluation(run.cfg))
    if data.class_names != run.class_names:
        raise DataError(f"the classes of {run.cfg.DATA.DATAPATH} are not those that {run.folder.path} was trained on")
    if split not in data.splits:
        raise DataError(f"{run.folder.path} has no {split} images that it did not train on")
    return _loaded(run, replace(data, splits={split: data.splits[split]}), split, data.task.name)


def other_data(cfg: CfgNode, task: str, path: str, changes: Sequence[str] = ()) -> CfgNode:
    """A run's config for the images of another task; keys that select among the run's own images are reset.

    Args:
        changes: KEY VALUE pairs of ``DATA`` for the other task.
    """
    other, default = for_evaluation(cfg), get_cfg()
    other.defrost()
    for key in keys_of(TASK, SAMPLE):
        if key.startswith("DATA."):
            last = key.removeprefix("DATA.")
            other.DATA[last] = default.DATA[last]
    other.DATA.NAME = task
    other.DATA.DATAPATH = path
    other.merge_from_list(list(changes))
    other.freeze()
    return other


def for_evaluation(cfg: CfgNode) -> CfgNode:
    """The config with decoded test images cached too: these tools read them repeatedly."""
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.DATA.CACHE == "train":
        cfg.DATA.CACHE = "all"
    cfg.freeze()
    return cfg


def read_mapping(path: str) -> dict[str, str | None]:
    """``--classes``: a JSON object {their class: the run's, or null}, or a CSV file with two columns.

    Raises:
        ConfigError: the file is missing or malformed.
    """
    if not path:
        return {}
    try:
        if path.endswith(".json"):
            mapping = read_json(Path(path))
            if not isinstance(mapping, dict) or not all(isinstance(v, str | None) for v in mapping.values()):
                raise ValueError("this is not an object of class names")
            return mapping
        lines = [line for line in csv.reader(read_text(Path(path)).splitlines()) if line]
        if wrong := [line for line in lines if len(line) != 2]:
            raise ValueError(f"a line has {len(wrong[0])} columns, not 2: {str(wrong[0])[:200]}")
        names = [theirs.strip() for theirs, _ in lines]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{twice[0]!r} occurs twice")
        return {name: ours.strip() or None for name, (_, ours) in zip(names, lines, strict=True)}
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"--classes {path}: {error}") from error


class Classes:
    """Maps classes of another set to the run's: by identical name, by ``--classes``, or by similar spelling.

    Args:
        mapping: their class name -> the run's, None to leave a class out.
    """

    def __init__(self, run: FinishedRun, mapping: dict[str, str | None]):
        self.run = run
        self.mapping = mapping
        self.used = set()
        self.targets = self._targets()

    def _targets(self) -> dict[str, int]:
        """Their name -> the run's label, -1 for none."""
        ours = self._ours(list(dict.fromkeys(name for name in self.mapping.values() if name is not None)), "--classes")
        return {theirs: -1 if name is None else ours[name] for theirs, name in self.mapping.items()}

    def _ours(self, names: list[str], of: str) -> dict[str, int]:
        """The run's label of each name.

        Raises:
            DataError: the run does not have some of them.
        """
        labels = match(names, self.run.class_names, of, SPELLINGS)
        own = self.run.class_names
        if unknown := [name for name, label in zip(names, labels, strict=True) if label is None]:
            some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise DataError(
                f"{of} has {len(unknown)} classes that {self.run.folder.path} does not have: {some}. Its own are "
                f"{', '.join(own[:5])}{', ...' if len(own) > 5 else ''}: map them in a file for "
                '--classes, {"their class": "class of the run", "another": null}'
            )
        return dict(zip(names, labels, strict=True))

    def numbers(self, names: list[str], of: str) -> np.ndarray:
        """The run's label of each class of the set ``of``, -1 for classes left out.

        Raises:
            DataError: the run does not have some of them, or a name is ambiguous.
        """
        entries = match(list(self.mapping), names, "--classes", SPELLINGS)
        mapped = {index: theirs for theirs, index in zip(self.mapping, entries, strict=True) if index is not None}
        self.used |= set(mapped.values())
        if not mapped and names == self.run.class_names:
            return np.arange(len(names))  # also where several classes have one name
        rest = self._ours([name for i, name in enumerate(names) if i not in mapped], of)
        return np.array([self.targets[mapped[i]] if i in mapped else rest[name] for i, name in enumerate(names)])

    def require_used(self) -> None:
        """Raises DataError: an entry of ``--classes`` does not match a class of any set."""
        if useless := [name for name in self.mapping if name not in self.used]:
            some = ", ".join(map(repr, useless[:5])) + (", ..." if len(useless) > 5 else "")
            raise DataError(f"--classes: {len(useless)} entries match no class of the test sets: {some}")


def _open_task(run: FinishedRun, wanted: Wanted, classes: Classes) -> TestSet:
    data = open_test(other_data(run.cfg, wanted.task, wanted.path))
    ours = find_task(run.cfg.DATA.NAME)
    if (
        data.task.group == ours.group == "ImageNet" and not classes.mapping
    ):  # by label: class names come in several spellings
        number = np.arange(len(data.class_names))
    else:
        number = classes.numbers(data.class_names, wanted.name)
    present = np.arange(len(data.class_names)) if data.class_mask is None else data.class_mask
    return _mapped(run, data, number, present, wanted.name)


def _open_folder(run: FinishedRun, wanted: Wanted, classes: Classes) -> TestSet:
    root = Path(wanted.path)
    inside, notes = "", []
    if split_folders(root):
        inside = one_called(root, "test") or one_called(root, "val")
        if not inside:
            raise DataError(f"{root} has train/, but neither test/ nor val/ to test on")
        notes = [f"the images of {wanted.name} are those in {inside}/"]
    names = class_folders(root / inside)
    items, left_out = images_below(root, inside, names)
    split = FileSplit(root, items)
    data = Data(TASKS["folder"], names, {"test": split}, "", "folder", f"{len(split)} files", run.tuned.pixels)
    data.notes = notes + left_out
    return _mapped(run, data, classes.numbers(names, wanted.name), np.unique(split.labels), wanted.name)


def _mapped(run: FinishedRun, data: Data, number: np.ndarray, present: np.ndarray, name: str) -> TestSet:
    """``data`` with the run's labels, without classes that the run does not have."""
    split, left_out = data.splits["test"], 0
    labels = number[split.labels]
    if (kept := np.flatnonzero(labels >= 0)).size < len(labels):
        left_out = len(labels) - kept.size
        split, labels = split.take(kept), labels[kept]
    if not len(labels):
        raise DataError(f"no images of {name} are left: all of its classes are left out")
    classes = np.unique(number[present])
    classes = classes[classes >= 0]
    splits = {"test": Split(split.read, labels, split.keys, split.stamp)}
    loaded = _loaded(run, replace(data, splits=splits, class_names=run.class_names), "test", name)
    masked = None if len(classes) == len(run.class_names) else torch.from_numpy(classes)
    about = loaded.about | {"classes": len(classes), "images_of_other_classes_left_out": left_out}
    return replace(loaded, classes=masked, about=about)


def _loaded(run: FinishedRun, data: Data, split: str, name: str) -> TestSet:
    data = replace(data, pixels=run.tuned.pixels)
    loaders, corrupt = data.loaders(for_evaluation(run.cfg), run.device)
    about = {
        "task": data.task.name,
        "split": split,
        "version": data.version,
        "images": len(loaders[split].labels),
        "classes": len(run.class_names),
        "notes": data.notes,
        "left_out": corrupt,
    }
    return TestSet(name, loaders[split], None, data.splits[split].keys, about)
