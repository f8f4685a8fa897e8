"""What ``vitune forgetting`` does: k-NN and a linear probe on an old data set, before and after tuning."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...configs.config import ConfigError
from ..finished.command import paths_and_settings
from ..finished.run import FinishedRun, methods_of, open_runs
from ..finished.sets import Wanted, parse_sets
from ..finished.write import percent, write_study
from ..report.tables import Cell, Table, plain, points
from .__main__ import REPORTED
from .old_set import OldSet, check_settings, frozen_encoder, old_config, open_old, remembered, tuned_encoder
from .picture import Point, draw_forgetting

LOWEST_TEMPERATURE = 0.02  # below, exp(1 / T) is too large for float32

TEXT = (
    "Weighted k-NN and a linear probe on pooled features after the final norm, of the pre-trained backbone (before) "
    "and of the tuned one (after); features that a method adds for its head are left out. Training "
    "images of the old set are the bank, its test images are counted; all figures in %."
)


@dataclass(frozen=True)
class Remembered:
    """What one run gained and kept; ``before`` and ``after`` as ``remembered`` gives them."""

    run: FinishedRun
    old: OldSet
    before: dict
    after: dict
    reported: int

    @property
    def new(self) -> float | None:
        """Test accuracy on the run's own task."""
        result = self.run.result
        return result["test"]["top1"] if result and result["test"] else None

    @property
    def mean(self) -> float | None:
        return None if self.new is None else (self.new + self.kept) / 2

    @property
    def kept(self) -> float:
        return self.after["knn"][self.reported]["top1"]

    @property
    def had(self) -> float:
        return self.before["knn"][self.reported]["top1"]


def study(
    runs: Sequence[FinishedRun],
    wanted: Wanted,
    changes: Sequence[str],
    ks: Sequence[int],
    reported: int,
    temperature: float,
    probe: bool,
) -> list[Remembered]:
    """Measure every run on the old set; what runs share is opened and measured once.

    Args:
        ks: those above the number of the old set's training images are left out.
        reported: the k for means; 0: REPORTED, or the nearest below it.

    Raises:
        ConfigError, DataError, ValueError: invalid settings or data.
    """
    configs = [old_config(run, wanted, changes) for run in runs]  # all problems come before all work
    opened, befores, results = {}, {}, []
    for run, cfg in zip(runs, configs, strict=True):
        images = (cfg.DATA.dump(), run.tuned.pixels.mean, run.tuned.pixels.std, run.device)
        if images not in opened:
            opened[images] = open_old(run, wanted, changes)
        old = opened[images]
        fitting = usable(ks, len(old.bank.labels), reported)
        k = reported or max((k for k in fitting if k <= REPORTED), default=fitting[0])
        frozen = frozen_encoder(run)
        key = (images, repr(frozen.facts), cfg.SOLVER.AMP)
        if key not in befores:
            befores[key] = remembered(frozen, old, fitting, temperature, probe)
        after = remembered(tuned_encoder(run), old, fitting, temperature, probe)
        results.append(Remembered(run, old, befores[key], after, k))
    return results


def usable(ks: Sequence[int], bank: int, reported: int) -> list[int]:
    """Those of ``ks`` that are at most ``bank``, the number of images.

    Raises:
        ConfigError: none, or not the one to be reported.
    """
    if reported > bank:
        raise ConfigError(f"--report-k {reported}: the old set has {bank} training images only")
    if not (fitting := [k for k in ks if k <= bank]):
        raise ConfigError(f"--k {' '.join(map(str, ks))}: the old set has {bank} training images only")
    return fitting


def summary(results: Sequence[Remembered]) -> Table:
    """One line per run: new, old before and after, their mean, probes."""
    old, ks = results[0].old.name, sorted({result.reported for result in results})
    knn = f"k-NN ({', '.join(map(str, ks))})"
    head = ["run", "new task", f"{knn} before", "after", "change", "mean of new and old"]
    probes = results[0].before["probe"] is not None
    head += ["probe before", "after", "change"] if probes else []
    lines = []
    for result in results:
        line = [result.run.label, percent(result.new), percent(result.had), percent(result.kept)]
        line += [_change(result.had, result.kept), percent(result.mean)]
        if probes:
            had, kept = result.before["probe"]["top1"], result.after["probe"]["top1"]
            line += [percent(had), percent(kept), _change(had, kept)]
        lines.append(line)
    note = "The mean needs a test accuracy on the new task." if any(result.new is None for result in results) else ""
    return plain(f"New task and {old}", head, lines, f"{new_tasks(results)} is the new task. {note}".strip())


def _change(before: float, after: float) -> Cell:
    return Cell(points(after - before), after - before)


def by_k(results: Sequence[Remembered], metric: str, name: str) -> Table:
    """Accuracy for every k, before and after."""
    ks = sorted({k for result in results for k in result.after["knn"]})
    lines = {}
    for result in results:
        for label, values in (("before tuning", result.before), (result.run.label, result.after)):
            if label == "before tuning" and len({id(other.before) for other in results}) > 1:
                label = f"{label}, {result.run.label}"
            lines[label] = [percent(values["knn"][k][metric]) if k in values["knn"] else None for k in ks]
    head = ["encoder", *(f"k = {k}" for k in ks)]
    return plain(f"{results[0].old.name}: k-NN {name}", head, [[label, *cells] for label, cells in lines.items()])


def new_tasks(results: Sequence[Remembered]) -> str:
    """What the runs were tuned on."""
    images = [result.run.cfg.DATA for result in results]
    names = [Path(data.DATAPATH).absolute().name if data.NAME == "folder" else data.NAME for data in images]
    return " or ".join(dict.fromkeys(names))


def numbers_of(result: Remembered) -> dict:
    """The data of a line."""
    return {
        "run": str(result.run.folder.path),
        "label": result.run.label,
        "methods": methods_of(result.run.cfg),
        "new": result.run.result and {"task": result.run.result["data"]["task"], "test": result.run.result["test"]},
        "old": result.old.about,
        "precision": result.old.cfg.SOLVER.AMP,
        "report_k": result.reported,
        "before": result.before,
        "after": result.after,
        "mean": result.mean,
    }


def parse_ks(text: str, reported: int, temperature: float) -> list[int]:
    """The k of ``--k`` and ``--report-k``, in order.

    Raises:
        ConfigError: they, or the temperature, are invalid.
    """
    try:
        ks = {int(part) for part in text.replace(",", " ").split()} | ({reported} if reported else set())
    except ValueError:
        ks = set()
    if not ks or min(ks) < 1:
        raise ConfigError(f"--k {text!r} (--report-k {reported}): these must be whole numbers of at least 1")
    if not LOWEST_TEMPERATURE <= temperature < float("inf"):
        raise ConfigError(f"--temperature {temperature:g}: it must be at least {LOWEST_TEMPERATURE}")
    return sorted(ks)


def perform(args: argparse.Namespace) -> None:
    paths, pairs = paths_and_settings(args.arguments)
    ks = parse_ks(args.k, args.report_k, args.temperature)
    theirs, changes = check_settings(pairs)
    (wanted,) = parse_sets([args.on], [])
    runs = open_runs(paths, changes)
    results = study(runs, wanted, theirs, ks, args.report_k, args.temperature, not args.no_probe)
    folder = args.to or runs[0].folder.path / "forgetting"
    picture = folder / "forgetting.png"
    shown = [
        Point(
            result.run.label,
            methods_of(result.run.cfg),
            result.new,
            {k: at["top1"] for k, at in result.after["knn"].items()},
            {k: at["top1"] for k, at in result.before["knn"].items()},
        )
        for result in results
    ]
    draw_forgetting(shown, results[0].reported, wanted.name, new_tasks(results), picture)
    tables = [summary(results), by_k(results, "top1", "top-1"), by_k(results, "top5", "top-5")]
    if missing := [k for k in ks if k > max(results[0].after["knn"])]:
        tables[1].text = f"Too few training images for k = {', '.join(map(str, missing))}."
    numbers = {"temperature": args.temperature, "runs": [numbers_of(result) for result in results]}
    write_study(folder, "forgetting", f"Forgetting: {wanted.name}", TEXT, tables, [picture], numbers)
