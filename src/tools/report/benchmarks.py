"""The tables of the report, the tasks that are their columns, and the means over tasks that papers print."""

from collections.abc import Iterable
from dataclasses import dataclass

from ...configs.files import ConfigError
from ...data.tasks import GROUPS, TASKS, find_task
from .rows import Place, Row

VTAB = ("Natural", "Specialized", "Structured")
TABLES = {**dict.fromkeys(VTAB, "VTAB-1k"), "FGVC": "FGVC", "few-shot": "few-shot", "many-shot": "many-shot"}
OTHER = "other tasks"
_KINDS = ("vtab-1k", "fgvc", "few-shot", "many-shot", "")


@dataclass(frozen=True)
class Benchmark:
    """One table.

    Attributes:
        kind: "vtab-1k", "fgvc", "few-shot", "many-shot" or "".
        places: its columns, in order.
        means: name of a mean over tasks -> the weight of each task; {} if papers print none.
        alike: whether its protocol has the same pixels for all tasks.
    """

    name: str
    kind: str
    places: tuple[Place, ...]
    means: dict[str, dict[Place, float]]
    alike: bool

    @property
    def columns(self) -> dict[str, dict[Place, float]]:
        """Its tasks and means: name -> the weight of each task."""
        single = {place.task if self.kind else str(place): {place: 1.0} for place in self.places}
        return single | self.means

    @property
    def headline(self) -> dict[str, dict[Place, float]]:
        """The summary of the table: its mean over all tasks, or each task by itself."""
        whole = {name: weights for name, weights in self.means.items() if len(weights) == len(self.places)}
        return dict(list(whole.items())[-1:]) or self.columns

    def rows(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if any(place in row.cells for place in self.places)]


def benchmarks(rows: list[Row], wanted: frozenset[str] = frozenset()) -> list[Benchmark]:
    """The tables that have results; ``wanted``: only these tasks, or all if empty."""
    present = {place for row in rows for place in row.cells if not wanted or place.task in wanted}
    names: dict[str, set[Place]] = {}
    for place in present:
        names.setdefault(_table_of(place), set()).add(place)
    made = []
    for name, some in names.items():
        kind = name.split(",")[0].lower() if name != OTHER else ""
        made.append(_benchmark(name, kind, some, wanted))
    return sorted(made, key=lambda table: (_KINDS.index(table.kind), table.places[0].shots))


def tasks_named(names: Iterable[str]) -> frozenset[str]:
    """Task names, with groups of tasks expanded; names of the user's own folders and lists are kept.

    Raises:
        ConfigError: an unknown task; the message suggests the nearest.
    """
    chosen = set()
    for name in names:
        if name.lower() in GROUPS:
            chosen |= {task.name for task in TASKS.values() if task.group in GROUPS[name.lower()]}
        else:
            chosen.add(name if name.split()[0] in ("folder", "lists") else _task_named(name))
    return frozenset(chosen)


def _task_named(name: str) -> str:
    try:
        return find_task(name).name
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _table_of(place: Place) -> str:
    name = TABLES.get(TASKS[place.task].group, OTHER) if place.task in TASKS else OTHER
    if name == "few-shot":
        return f"few-shot, {place.shots} per class"
    return OTHER if place.shots else name


def _benchmark(name: str, kind: str, present: set[Place], wanted: frozenset[str]) -> Benchmark:
    if kind in ("vtab-1k", "fgvc", "few-shot"):  # includes tasks without results
        shots = next(iter(present)).shots
        tasks = [task for task in TASKS.values() if task.group in GROUPS[kind]]
        places = tuple(Place(task.name, shots) for task in tasks if not wanted or task.name in wanted)
        return Benchmark(name, kind, places, _means(places), True)
    order = {task: i for i, task in enumerate(TASKS)}
    places = tuple(sorted(present, key=lambda place: (order.get(place.task, len(order)), place.task, place.shots)))
    return Benchmark(name, kind, places, {}, False)


def _means(places: tuple[Place, ...]) -> dict[str, dict[Place, float]]:
    """The means over complete groups."""
    means, shots = {}, places[0].shots
    groups: dict[str, list[Place]] = {}
    for group in dict.fromkeys(TASKS[place.task].group for place in places):
        whole = [Place(task.name, shots) for task in TASKS.values() if task.group == group]
        if set(whole) <= set(places):
            groups[group] = whole
    if set(groups) & set(VTAB):
        means = {group: {place: 1 / len(some) for place in some} for group, some in groups.items()}
        if set(groups) == set(VTAB):
            means["mean of 3 groups"] = {p: 1 / (3 * len(some)) for some in groups.values() for p in some}
    if groups and (not means or len(groups) == len(VTAB)):
        means[f"mean of {len(places)} tasks"] = dict.fromkeys(places, 1 / len(places))
    return means
