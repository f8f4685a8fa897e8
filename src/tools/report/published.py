"""Published figures, with their source and what is known of the protocol, to compare with ours.

The data are in published/: figures.csv (one figure per line, in percent), sources.csv (the sources and their
protocols; "not stated" or empty if a source does not say), methods.csv and backbones.csv (their names and ours). The
settings of single tasks are not repeated there: the column "recipe" names the files of configs/repro that have them.
To add a figure, add a line to figures.csv, and its source to sources.csv if it is new.
"""

import csv
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from ...configs.files import ConfigError
from ...data.tasks import TASKS
from ...models.vit_backbones.zoo import ALIASES
from ..tune.spec import Sweep
from .protocol import FACTORS, SETTINGS_OF, UNKNOWN, differences, recipe_named

FOLDER = Path(__file__).parent / "published"
BENCHMARKS = ("vtab-1k", "fgvc", "few-shot", "many-shot", "forgetting", "freqfit-gain")
GROUPS = {
    group.lower(): [t.name for t in TASKS.values() if t.group == group]
    for group in ("Natural", "Specialized", "Structured")
}
FGVC = [task.name for task in TASKS.values() if task.group == "FGVC"]


@dataclass(frozen=True)
class Published:
    """A method's published figures on a benchmark, by one source.

    Attributes:
        values: our name of a task, group or mean -> percent. Means that the source does not print are computed if
            it has all tasks.
        params_millions: as printed, without or with the head; the mean if it differs between tasks.
        protocol: the source's statement for each of ``FACTORS``, or "not stated"; "epoch" is "last" or "best on test";
            also "mean" (which one the source prints) and possibly "caution".
        recipes: files of configs/repro with its settings; ``protocol`` refers to them.
    """

    method: str
    backbone: str
    source: str
    values: dict[str, float]
    params_millions: float | None
    protocol: dict[str, str]
    recipes: tuple[str, ...] = ()


def find(benchmark: str, methods: Iterable[str] = (), backbone: str = "") -> list[Published]:
    """Published figures of some methods on a backbone; by default all methods and backbones.

    Args:
        benchmark: one of ``BENCHMARKS``; "freqfit-gain" has the gains in FreqFiT's figure, in points; "forgetting" the
            k-NN accuracy on ImageNet-1k after training on CIFAR-100.
        methods: published names or ours (MODEL.TRANSFER_TYPE, with "+freqfit"); case does not matter.
        backbone: a published name, or a DATA.FEATURE.

    Raises:
        ValueError: a name that no source has; the message suggests the nearest.
    """
    _require([benchmark], BENCHMARKS, "benchmark")
    tables = [item for item in _all() if item[0] == benchmark]
    names = {name.lower() for name in methods}
    _require(names, {label for _, figures in _all() for label in _labels(figures)}, "method with published figures")
    backbone = ALIASES.get(backbone, backbone).lower()
    _require(
        [backbone] if backbone else [], {label for _, figures in _all() for label in _backbones(figures)}, "backbone"
    )
    return [
        figures
        for _, figures in tables
        if (not names or names & _labels(figures)) and (not backbone or backbone in _backbones(figures))
    ]


def named(spec: dict) -> list[Published]:
    """The figures that a sweep's PUBLISHED refers to: METHOD (a name or a list), BACKBONE, SOURCE (a part of it),
    BENCHMARK, and EPOCH ("last" or "best on test") if a source prints both.

    Raises:
        ValueError: an unknown key, or nothing fits; the message suggests the nearest.
    """
    keys = ("METHOD", "BACKBONE", "SOURCE", "BENCHMARK", "EPOCH")
    _require([str(key).lower() for key in spec], keys, "key of PUBLISHED")
    methods = spec.get("METHOD", [])
    methods = [methods] if isinstance(methods, str) else methods
    benchmarks = [spec["BENCHMARK"]] if spec.get("BENCHMARK") else ("vtab-1k", "fgvc", "few-shot", "many-shot")
    fitting = [figures for name in benchmarks for figures in find(name, methods, spec.get("BACKBONE", ""))]
    names = {name.lower() for name in methods}
    # A published name rather than our name, which may stand for several.
    fitting = [figures for figures in fitting if figures.method.lower() in names] or fitting
    part, epoch = spec.get("SOURCE", "").lower(), spec.get("EPOCH", "")
    if matching := [
        figures for figures in fitting if part in figures.source.lower() and epoch in ("", figures.protocol["epoch"])
    ]:
        return matching
    sources = ", ".join(dict.fromkeys(figures.source for figures in fitting)) or "none"
    raise ValueError(f"no published figures fit PUBLISHED {spec}; sources with that method: {sources}")


def reasons(results: list[dict], theirs: Published) -> list[str]:
    """Reasons why ``theirs`` is not comparable with our runs, a sentence each; none if it is.

    Args:
        results: contents of the result.json files of our figure: all seeds and tasks of a row.
    """
    differ = factors(results, theirs)
    sentences = [
        f"{FACTORS[factor]}: ours {mine}; theirs {their}" for factor, mine, their in differ if their != UNKNOWN
    ]
    if unknown := [FACTORS[factor] for factor, _, their in differ if their == UNKNOWN]:
        sentences.append(f"not stated for theirs: {', '.join(unknown)}")
    return sentences + ([theirs.protocol["caution"]] if theirs.protocol.get("caution") else [])


def factors(results: list[dict], theirs: Published) -> list[tuple[str, str, str]]:
    """(factor, ours, theirs) for each factor of the protocol that differs or that the source does not state."""
    stated = {factor: theirs.protocol[factor] for factor in FACTORS}
    recipe = _recipe(theirs.recipes, theirs.method, theirs.backbone)
    return differences(results, stated, recipe, theirs.method)


@cache
def _recipe(names: tuple[str, ...], method: str, backbone: str) -> Sweep | None:
    """The file in configs/repro with the settings of a source's row."""
    for sweep in filter(None, map(recipe_named, names)):
        methods = sweep.published.get("METHOD") or [choice.label for choice in sweep.over["method"]]
        methods = [methods] if isinstance(methods, str) else methods
        if method in methods and sweep.published.get("BACKBONE", backbone) == backbone:
            return sweep
    return None


# --- the tables


@cache
def _all() -> list[tuple[str, Published]]:
    """(Benchmark, figures of one method, backbone and source) in the order of figures.csv."""
    sources = {row["source"]: row for row in _table("sources")}
    checkpoints = {row["backbone"]: row for row in _table("backbones")}
    grouped: dict[tuple, list[dict]] = {}
    for row in _table("figures"):
        grouped.setdefault((row["benchmark"], row["source"], row["method"], row["backbone"]), []).append(row)
    entries = []
    for (benchmark, source, method, backbone), rows in grouped.items():
        its, weights = sources[source], checkpoints[backbone]
        recipes = tuple(its["recipe"].split())
        refer = f"{SETTINGS_OF}{' or '.join(f'configs/repro/{name}.yaml' for name in recipes)}" if recipes else UNKNOWN
        protocol = {key: value for key, value in its.items() if key not in ("source", "text", "recipe") and value}
        protocol = dict.fromkeys(FACTORS, refer) | protocol
        protocol["checkpoint"] = weights["ours"] + (f" ({weights['note']})" if weights["note"] else "")
        if not weights["ours"]:
            protocol["checkpoint"] = UNKNOWN
        values = {row["task"]: float(row["percent"]) for row in rows}
        sizes = [float(row["params_millions"]) for row in rows if row["params_millions"]]
        size = None if not sizes else sizes[0] if len(set(sizes)) == 1 else fmean(sizes)
        whole = values | {name: mean for name, mean in means(values).items() if name not in values}
        entries.append((benchmark, Published(method, backbone, its["text"], whole, size, protocol, recipes)))
    return entries


def means(values: dict[str, float]) -> dict[str, float]:
    """Groups and means computed from the tasks' values, where complete: both means of VTAB-1k, or FGVC's."""
    averages = {name: fmean(values[t] for t in tasks) for name, tasks in GROUPS.items() if values.keys() >= set(tasks)}
    if len(averages) == len(GROUPS):
        averages["mean of 3 groups"] = fmean(averages.values())
        averages["mean of 19 tasks"] = fmean(values[task] for tasks in GROUPS.values() for task in tasks)
    if values.keys() >= set(FGVC):
        averages["mean of 5 tasks"] = fmean(values[task] for task in FGVC)
    return averages


def _table(name: str) -> list[dict[str, str]]:
    with open(FOLDER / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def _our_names(table: str, column: str) -> dict[str, str]:
    return {row[column]: row["ours"] for row in _table(table)}


def _labels(figures: Published) -> set[str]:
    """The method's names, in its source and here."""
    return {figures.method.lower(), _our_names("methods", "method")[figures.method].lower()} - {""}


def _backbones(figures: Published) -> set[str]:
    return {figures.backbone.lower(), _our_names("backbones", "backbone")[figures.backbone].lower()} - {""}


def _require(names: Iterable[str], choices: Iterable[str], what: str) -> None:
    """Raises ConfigError for an unknown name, ignoring case."""
    lower = {name.lower() for name in choices}
    for name in names:
        if name.lower() not in lower:
            near = difflib.get_close_matches(name.lower(), lower, 3, cutoff=0.4)
            meant = f"; the nearest: {', '.join(near)}" if near else f"; known: {', '.join(sorted(lower))}"
            raise ConfigError(f"unknown {what}: {name!r}{meant}")
