"""Grouping runs into rows (methods) with cells (tasks, seeds): what makes two runs different rows."""

from dataclasses import dataclass, field
from typing import Any

from .collect import Collection, Run, drop_unused, not_compared, set_aside
from .stats import Summary, summarise, weighted

# What identifies a row, besides the keys that split it.
METHOD_KEYS = ("MODEL.TRANSFER_TYPE", "FREQFIT", "DATA.FEATURE")
# What distinguishes cells of a row, never rows.
CELL_KEYS = ("DATA.NAME", "DATA.SHOTS", "SEED", "DATA.SPLIT_SEED")


@dataclass(frozen=True)
class Place:
    """A column: a task, with ``shots`` training images per class (0: all)."""

    task: str
    shots: int = 0

    def __str__(self) -> str:
        return f"{self.task}, {self.shots} shots" if self.shots else self.task


@dataclass
class Row:
    """Runs that differ only in task, seed and the settings chosen for a task.

    Attributes:
        identity: what distinguishes it from other rows: methods, backbone, axes of its sweep, keys that split.
        cells: one run per seed.
    """

    label: str
    identity: dict[str, Any]
    sweep: str
    cells: dict[Place, dict[str, Run]] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        return [run for cell in self.cells.values() for run in cell.values()]

    @property
    def method(self) -> str:
        return self.runs[0].method

    @property
    def backbone(self) -> str:
        return self.identity["DATA.FEATURE"]

    @property
    def name(self) -> str:
        return f"{self.label} ({self.backbone})"

    def value(self, key: str) -> Any:
        """The value of an axis, or of a config key that is the same in all of its runs, else None."""
        values = [run.config.get(key) for run in self.runs]
        same = all(value == values[0] for value in values)
        return self.identity.get(key, values[0] if same else None)

    def only(self, tasks: frozenset[str]) -> bool:
        """Keep only these tasks (all if empty); returns whether any are left."""
        self.cells = {place: cell for place, cell in self.cells.items() if not tasks or place.task in tasks}
        return bool(self.cells)

    def values(self, place: Place, best: bool = False) -> dict[str, float]:
        """Seed -> accuracy as a fraction, {} if there is none; ``best``: of the best test epoch."""
        cell = self.cells.get(place, {})
        if not best:
            return {seed: run.accuracy for seed, run in cell.items()}
        accuracies = {seed: run.best_test_epoch for seed, run in cell.items()}
        return {} if None in accuracies.values() else accuracies

    def summary(self, weights: dict[Place, float], best: bool = False) -> Summary | None:
        """The summary of a weighted sum of tasks; None if one of them is missing."""
        cells = [self.values(place, best) for place in weights]
        if not all(cells):
            return None
        return weighted(cells, list(weights.values())) if len(cells) > 1 else summarise(list(cells[0].values()))


def group(collection: Collection) -> list[Row]:
    """The rows of all tested runs; runs that compete for one cell are set aside in ``collection``."""
    bases: dict[tuple, list[Run]] = {}
    for run in collection.tests:
        bases.setdefault((run.sweep.get("sweep", ""), repr(sorted(axes(run).items())), *_method(run)), []).append(run)
    rows = []
    for runs in bases.values():
        keys = splitting(runs)
        parts: dict[tuple, list[Run]] = {}
        for run in runs:
            parts.setdefault(tuple(repr(run.config[key]) for key in keys), []).append(run)
        rows += [_row(part, keys, collection) for part in parts.values()]
    drop_unused(collection)
    _tell_apart(rows)
    return sorted(rows, key=lambda row: (row.backbone, row.sweep, row.label))


def _method(run: Run) -> tuple:
    return tuple(run.config[key] for key in METHOD_KEYS)


def axes(run: Run) -> dict[str, Any]:
    """The axes of its sweep that distinguish rows: axis -> value or label."""
    columns = (*CELL_KEYS, *run.sweep.get("task_axes", ()))
    return {axis: value for axis, value in run.sweep.get("over", {}).items() if axis not in columns}


def splitting(runs: list[Run]) -> list[str]:
    """Keys that differ between runs of one task; keys that differ only between tasks are settings of the task.

    Settings chosen by a sweep do not count: only runs with the same choice are compared.
    """
    alike: dict[tuple, list[Run]] = {}
    for run in runs:
        alike.setdefault((run.task, run.shots, repr(sorted(run.sweep.get("tuned", {}).items()))), []).append(run)
    never = {*not_compared(), *CELL_KEYS, *METHOD_KEYS}
    return [
        key
        for key in runs[0].config
        if key not in never and any(len({repr(run.config.get(key)) for run in some}) > 1 for some in alike.values())
    ]


def _row(runs: list[Run], keys: list[str], collection: Collection) -> Row:
    first = runs[0]
    split = {key: first.config[key] for key in keys}
    identity = dict(zip(METHOD_KEYS, _method(first), strict=True)) | axes(first) | split
    label = ", ".join([_label(first), *(f"{short(key, keys)} {text(value)}" for key, value in split.items())])
    row = Row(label, identity, first.sweep.get("sweep", ""))
    for run in sorted(runs, key=lambda run: (run.written, str(run.folder))):
        cell = row.cells.setdefault(Place(run.task, run.shots), {})
        if older := cell.get(run.seed):
            set_aside(collection, older, run, "the same place in the table as")
        cell[run.seed] = run
    row.cells = {place: dict(sorted(row.cells[place].items())) for place in sorted(row.cells, key=str)}
    return row


def _label(run: Run) -> str:
    """A sweep's label without the axes that do not distinguish rows; else the methods."""
    if not any(axis in CELL_KEYS and axis != "DATA.NAME" for axis in run.sweep.get("over", {})):
        return run.sweep.get("row") or run.method
    own = axes(run)
    parts = [f"{short(axis, own)} {text(value)}" if axis in run.config else str(value) for axis, value in own.items()]
    return ", ".join(parts) or run.method


def short(key: str, others) -> str:
    """The shortest end of a key that distinguishes it from ``others``: MODEL.LORA.RANK -> rank, or lora.rank."""
    parts = key.split(".")
    for count in range(1, len(parts) + 1):
        end = ".".join(parts[-count:])
        if not any(other != key and other.endswith(end) for other in others):
            return end.lower()
    return key.lower()


def text(value: Any) -> str:
    return '""' if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def called(row: Row, rows: list[Row]) -> str:
    """A row's name among ``rows``: with its backbone if there are several."""
    return row.label if len({other.backbone for other in rows}) == 1 else row.name


def _tell_apart(rows: list[Row]) -> None:
    """Extend equal labels on one backbone until they are distinct."""
    for more in (lambda row: row.method, lambda row: row.sweep and f"sweep {row.sweep}"):
        names: dict[str, list[Row]] = {}
        for row in rows:
            names.setdefault(row.name, []).append(row)
        for same in names.values():
            for row in same if len(same) > 1 else ():
                addition = more(row)
                row.label += f" [{addition}]" if addition and addition != row.label else ""
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.name] = count = seen.get(row.name, 0) + 1
        row.label += f" ({count})" if count > 1 else ""
