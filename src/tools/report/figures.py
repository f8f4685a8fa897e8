"""The report's figures, as PNG and PDF: accuracy against parameters and time, curves over data, ablations."""

import re
from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path

from ...utils.plots import Series, bars_chart, panels_chart
from .benchmarks import Benchmark
from .collect import Run
from .comparing import Ablation
from .rows import Place, Row, called, text
from .stats import Summary
from .tables import mean_cost, seconds, trained

ACCURACY = "accuracy, % (with 95 % interval over seeds)"
MOST_PANELS = 24


def draw_all(tables: list[Benchmark], rows: list[Row], folder: Path) -> dict[str, str]:
    """Draw all figures except ablations: name of a figure -> its caption."""
    made = {}
    for kind in dict.fromkeys(table.kind for table in tables):
        some = [table for table in tables if table.kind == kind]
        made |= _against(some, rows, trained, "trained parameters, with the head", "parameters", folder)
        made |= _against(some, rows, seconds, "training time of a run, s", "time", folder)
    made |= _curves(tables, rows, "few-shot", "training images of each class", folder)
    return made | _curves(tables, rows, "many-shot", "training images", folder)


def _against(
    tables: list[Benchmark], rows: list[Row], of: Callable[[Run], float], xlabel: str, what: str, folder: Path
) -> dict[str, str]:
    """Accuracy against a cost: one panel for the mean over each table's tasks, or one per task."""
    panels: dict[str, dict[str, Series]] = {}
    for table in tables:
        for title, weights in table.headline.items():
            some = replace(table, places=tuple(weights))
            for row in table.rows(rows):
                if (summary := row.summary(weights)) and (cost := mean_cost(row, some, of)):
                    shots = "" if len(tables) == 1 else f", {table.places[0].shots} per class"
                    panels.setdefault(title + shots, {})[called(row, rows)] = _series([(cost, summary)])
    if not panels:
        return {}
    first = tables[0].name.partition(",")[0]
    name, left_out = _slug(f"{first}-{what}"), ""
    if len(panels) > MOST_PANELS:
        left_out = f" The first {MOST_PANELS} of {len(panels)} tasks."
    _draw(dict(list(panels.items())[:MOST_PANELS]), xlabel, name, folder, logarithmic=True, joined=False)
    gaps = " Rows with gaps are not drawn." if tables[0].means else ""
    return {name: f"{first}: accuracy against {xlabel}.{gaps}{left_out}"}


def _curves(tables: list[Benchmark], rows: list[Row], kind: str, xlabel: str, folder: Path) -> dict[str, str]:
    """Accuracy against the amount of data: one panel per data set, and for the mean if there is one."""
    panels: dict[str, dict[str, Series]] = {}
    for row in rows:
        points: dict[str, list[tuple[float, Summary]]] = {}
        for table in (table for table in tables if table.kind == kind):
            for title, weights in table.columns.items():
                if summary := row.summary(weights):
                    place = next(iter(weights))
                    panel = title.rpartition("-")[0] if kind == "many-shot" else title  # cifar100-1k -> cifar100
                    points.setdefault(panel, []).append((_amount(row, place), summary))
        for panel, some in points.items():
            panels.setdefault(panel, {})[called(row, rows)] = _series(sorted(some, key=lambda point: point[0]))
    panels = {title: series for title, series in panels.items() if any(len(x) > 1 for x, _, _ in series.values())}
    if not panels:
        return {}
    _draw(panels, xlabel, f"{kind}-curves", folder, logarithmic=True)
    return {f"{kind}-curves": f"{kind}: accuracy against {xlabel}."}


def _amount(row: Row, place: Place) -> float:
    return place.shots or next(iter(row.cells[place].values())).data["images"]["train"]


def draw_ablation(title: str, key: str, series: Ablation, folder: Path) -> dict[str, str]:
    """Lines over numeric values, bars over others."""
    values = list(dict.fromkeys(value for _, some in series.values() for value in some))
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        lines = {name: _series(list(some.items())) for name, (_, some) in series.items()}
        spread = min(values) > 0 and max(values) / min(values) >= 8
        _draw({title: lines}, key, _slug(title), folder, logarithmic=spread)
    else:
        bars = {
            name: (
                [100 * some[value].mean if value in some else nan for value in values],
                [_half(some[value]) if value in some else None for value in values],
            )
            for name, (_, some) in series.items()
        }
        bars_chart([text(value) for value in values], bars, ACCURACY, _paths(_slug(title), folder))
    return {_slug(title): f"{title}."}


def _series(points: list[tuple[float, Summary]]) -> Series:
    return [x for x, _ in points], [100 * s.mean for _, s in points], [_half(s) for _, s in points]


def _half(summary: Summary) -> float | None:
    return None if summary.half is None else 100 * summary.half


def _draw(panels: dict, xlabel: str, name: str, folder: Path, logarithmic: bool = False, joined: bool = True) -> None:
    panels_chart(panels, xlabel, ACCURACY, _paths(name, folder), logarithmic, joined)


def _paths(name: str, folder: Path) -> list[Path]:
    return [folder / f"{name}.png", folder / f"{name}.pdf"]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
