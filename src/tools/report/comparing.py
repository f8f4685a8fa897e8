"""Comparing rows: paired tests over tasks, average ranks, and the effect of one axis with all else equal."""

import difflib
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

from ...configs.files import ConfigError
from .benchmarks import Benchmark, benchmarks
from .collect import Run
from .rows import METHOD_KEYS, Place, Row, called, short, text
from .stats import FEWEST_TASKS, Summary, Test, average_ranks, holm, paired_test, summarise, weighted
from .tables import BEST, GAP, Cell, Table, described, p_value, percent, plain, points

Scores = dict[Any, dict[str, float]]  # task -> seed -> accuracy


def paired_tests(benchmark: Benchmark, rows: list[Row], baseline: str) -> Table | None:
    """Wilcoxon's signed-rank test for each pair of rows, or each row against the baseline, over their common tasks."""
    pairs = _pairs(rows, baseline)
    tests = [(row, other, test) for row, other in pairs if (test := _compare(benchmark, row, other))]
    if not tests:
        return None
    corrected = holm([test.p for _, _, test in tests])
    lines = [
        [called(row, rows), called(other, rows), *_test_cells(test), p_value(p)]
        for (row, other, test), p in zip(tests, corrected, strict=True)
    ]
    head = ["row", "compared with", *TEST_HEAD, "p, Holm"]
    description = (
        "Differences are the row's mean over seeds minus the other's, task by task, in points of accuracy. p: "
        f"Wilcoxon's signed-rank test over tasks, two-sided, corrected by Holm's method for {len(tests)} comparisons. "
        f"Fewer than {FEWEST_TASKS} tasks cannot be significant at 5 %, and are not tested."
    )
    return plain(f"{benchmark.name}: paired tests over tasks", head, lines, description)


TEST_HEAD = ["tasks", "better", "worse", "mean difference", "95 % interval", "median difference", "p"]


def _test_cells(test: Test) -> list:
    interval = "" if test.half is None else f"{points(test.mean - test.half)} to {points(test.mean + test.half)}"
    return [
        test.tasks,
        test.better,
        test.worse,
        Cell(points(test.mean), test.mean),
        Cell(interval or GAP, test.half),
        Cell(points(test.median), test.median),
        p_value(test.p),
    ]


def _pairs(rows: list[Row], baseline: str) -> list[tuple[Row, Row]]:
    """The pairs to test; a baseline with several backbones is compared within each of them."""
    bases = [row for row in rows if baseline.lower() in (row.label.lower(), row.name.lower())]
    if not baseline:
        return list(combinations(rows, 2))
    return [
        (row, base)
        for base in bases
        for row in rows
        if row is not base and (len(bases) == 1 or row.backbone == base.backbone)
    ]


def require_row(rows: list[Row], baseline: str) -> None:
    """Raises ConfigError for a baseline that is not a row; the message suggests the nearest."""
    names = [name for row in rows for name in (row.label, row.name)]
    if baseline.lower() not in [name.lower() for name in names]:
        near = difflib.get_close_matches(baseline, names, 3, cutoff=0.4) or names[::2]
        raise ConfigError(f"--baseline {baseline!r} is not a row of the tables; rows: {', '.join(near)}")


def _compare(benchmark: Benchmark, row: Row, other: Row) -> Test | None:
    shared = [place for place in benchmark.places if place in row.cells and place in other.cells]
    differences = [row.summary({place: 1.0}).mean - other.summary({place: 1.0}).mean for place in shared]
    return paired_test(differences) if differences else None


def ranks_table(benchmark: Benchmark, rows: list[Row]) -> Table | None:
    """Average ranks of the rows with results on every task."""
    whole = [row for row in rows if all(place in row.cells for place in benchmark.places)]
    if len(whole) < 2:
        return None
    scores = [[row.summary({place: 1.0}).mean for place in benchmark.places] for row in whole]
    ranked = sorted(zip(average_ranks(scores), whole, strict=True), key=lambda pair: pair[0])
    lines = [[called(row, rows), Cell(f"{rank:.2f}", rank)] for rank, row in ranked]
    without = [called(row, rows) for row in rows if row not in whole]
    description = (
        f"Mean over {len(benchmark.places)} tasks of the rank on each (1 is the best, ties share their mean rank)."
    )
    if without:
        description += f" Not ranked because tasks are missing: {', '.join(without)}."
    return plain(f"{benchmark.name}: average ranks", ["row", "average rank"], lines, description)


# --- one axis, all else equal


def families(rows: list[Row], key: str) -> dict[str, list[Row]]:
    """Groups of rows that differ only in ``key``, by a name for what they share."""
    explained = {row.name: _unexplained(row, rows, key) for row in rows}
    grouped: dict[tuple, list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.sweep, *explained[row.name]), []).append(row)
    named: dict[str, list[Row]] = {}
    for (sweep, *parts), some in grouped.items():
        name = ", ".join(_setting_text(key, value) for key, value in parts if value not in ("", None)) or "all"
        named.setdefault(f"{name} [sweep {sweep}]" if name in named else name, some)
    return named


def _setting_text(key: str, value: Any) -> str:
    return text(value) if key in METHOD_KEYS or "." not in key else f"{short(key, ())} {text(value)}"


def _unexplained(row: Row, rows: list[Row], key: str) -> tuple:
    """The row's identity without ``key`` and without parts that others imply.

    Methods and backbone imply the label on a sweep's own axis that only names them; if such an axis is the key, its
    label implies the methods.
    """
    alike = [other for other in rows if other.sweep == row.sweep]
    names = dict.fromkeys(name for other in alike for name in other.identity)
    own = {name for name in names if name not in row.runs[0].config}
    by = {name: (key,) if key in own else METHOD_KEYS for name in names if key in own or name in own}
    implied = {key, *(name for name in by if _implied(name, by[name], alike))}
    return tuple((name, _hashable(row.value(name))) for name in names if name not in implied)


def _implied(name: str, by: tuple[str, ...], rows: list[Row]) -> bool:
    """Whether ``name`` has several values, and only one for each combination of ``by``."""
    values: dict[tuple, set] = {}
    for row in rows:
        values.setdefault(tuple(repr(row.value(key)) for key in by), set()).add(repr(row.value(name)))
    return all(len(some) == 1 for some in values.values()) and len(set.union(*values.values())) > 1


def scores_by_value(runs: Iterable[Run], key: str) -> dict[Any, Scores]:
    """Value of ``key`` -> task -> seed -> accuracy; shots are part of the task unless they are the key."""
    scores: dict[Any, Scores] = {}
    for run in runs:
        value = run.value(key)
        if value is None:
            continue
        value = _hashable(value)
        place = Place(run.task, 0 if key == "DATA.SHOTS" else run.shots)
        value = run.shots if key == "DATA.SHOTS" else value
        scores.setdefault(value, {}).setdefault(place, {})[run.seed] = run.accuracy
    return dict(sorted(scores.items(), key=lambda item: _order(item[0])))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _order(value: Any) -> tuple:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (is_number, value if is_number else 0, str(value))


def shared_tasks(by_value: dict[Any, Scores]) -> list[Place]:
    sets = [set(scores) for scores in by_value.values()]
    return sorted(set.intersection(*sets), key=str) if sets else []


def mean_over(scores: Scores, places: list[Place]) -> Summary:
    """The mean over tasks, by the same rule as in the tables."""
    return weighted([scores[place] for place in places], [1 / len(places)] * len(places))


Ablation = dict[str, tuple[list[Place], dict[Any, Summary]]]  # series -> its tasks, value -> accuracy


def ablation(rows: list[Row], key: str, tables: list[Benchmark]) -> Ablation:
    """Accuracy per value of ``key`` with all else equal, over the tasks of ``tables`` that all values have."""
    series: Ablation = {}
    for name, family in families(rows, key).items():
        by_value = scores_by_value(runs_in(family, tables), key)
        places = shared_tasks(by_value)
        if len(by_value) > 1 and places:
            series[name] = places, {value: mean_over(scores, places) for value, scores in by_value.items()}
    return series


def ablation_of_tuning(runs: list[Run], key: str) -> Ablation:
    """The same on validation images, from sweeps' tuning runs: per value, the best over everything else tuned."""
    rows: dict[str, list[Run]] = {}
    for run in runs:
        if run.sweep and key in run.sweep["tuned"]:
            rows.setdefault(f"{run.sweep['sweep']}: {run.sweep['row'] or run.method}", []).append(run)
    series: Ablation = {}
    for name, some in rows.items():
        best: dict[Any, Scores] = {}
        for run in some:
            cell = best.setdefault(run.sweep["tuned"][key], {}).setdefault(Place(run.task, run.shots), {})
            cell[run.seed] = max(cell.get(run.seed, 0.0), run.accuracy)
        best = dict(sorted(best.items(), key=lambda item: _order(item[0])))
        if len(best) > 1 and (places := shared_tasks(best)):
            series[name] = places, {value: mean_over(scores, places) for value, scores in best.items()}
    return series


def ablation_table(title: str, series: Ablation, description: str) -> Table:
    values = sorted({value for _, some in series.values() for value in some}, key=_order)
    lines = []
    for name, (places, some) in series.items():
        line = [name, Cell(str(len(places)), len(places), tuple(map(str, places)))]
        for value in values:
            summary = some.get(value)
            line.append(
                Cell(percent(summary), summary.mean, described(summary), summary=summary) if summary else Cell(GAP)
            )
        lines.append(line)
    return plain(title, ["row", "tasks", *(text(value) for value in values)], lines, description)


def pairs_tables(rows: list[Row], key: str, wanted: list[Benchmark]) -> list[Table]:
    """The effect of ``key``: paired differences per task and over tasks, for every row with both values."""
    tables = []
    for benchmark in wanted:
        lines, details = [], []
        for name, family in families(benchmark.rows(rows), key).items():
            by_value = scores_by_value(runs_in(family, [benchmark]), key)
            first, *others = by_value or [None]
            for value in others:
                differences = _differences(by_value[value], by_value[first])
                if not differences:
                    continue
                pair = f"{text(value)} − {text(first)}"
                test = paired_test([summary.mean for summary in differences.values()])
                lines.append([name, pair, *_test_cells(test)])
                details += [
                    [name, pair, str(place), summary.n, Cell(points(summary.mean), summary.mean), _interval(summary)]
                    for place, summary in differences.items()
                ]
        if lines:
            description = (
                f"For rows that differ only in {key}, per task: the difference in accuracy with equal seeds, averaged "
                "over their common seeds, in points; then the mean over tasks with its 95 % interval (Student's t over "
                "tasks) and Wilcoxon's test over tasks; the last column has Holm's correction."
            )
            for line, p in zip(lines, holm([line[-1].sort for line in lines]), strict=True):
                line.append(p_value(p))
            title = f"{benchmark.name}: paired differences for {key}"
            tables.append(plain(title, ["row", "difference", *TEST_HEAD, "p, Holm"], lines, description))
            head = ["row", "difference", "task", "seeds", "mean difference", "95 % interval over seeds"]
            tables.append(plain(f"{title}, task by task", head, details))
    return tables


def runs_in(family: list[Row], tables: list[Benchmark]) -> list[Run]:
    """The rows' runs on the tables' tasks."""
    places = [place for table in tables for place in table.places]
    return [run for row in family for place in places for run in row.cells.get(place, {}).values()]


def _differences(mine: Scores, base: Scores) -> dict[Place, Summary]:
    differences = {}
    for place in sorted(mine.keys() & base.keys(), key=str):
        if seeds := sorted(mine[place].keys() & base[place].keys()):
            differences[place] = summarise([mine[place][seed] - base[place][seed] for seed in seeds])
    return differences


def _interval(summary: Summary) -> Cell:
    return Cell(GAP) if summary.half is None else Cell(f"{points(summary.low)} to {points(summary.high)}", summary.half)


def repro_table(rows: list[Row], named: Callable, factors: Callable) -> Table | None:
    """For sweeps that repeat published figures: ours, theirs, the difference, and the protocol factors that differ.

    Args:
        named: a sweep's "published" -> the published figures.
        factors: our results and theirs -> (factor, ours, theirs) for each factor that differs.
    """
    lines = []
    for row in rows:
        spec = row.runs[0].sweep.get("published")
        for theirs in named(spec) if spec else ():
            for name, mine, best, runs in _common_figures(row, theirs):
                differ = factors([run.facts for run in runs], theirs)
                differing = "; ".join(f"{factor}: ours {ours}, theirs {other}" for factor, ours, other in differ)
                difference = mine.mean - theirs.values[name] / 100
                lines.append(
                    [
                        row.label,
                        f"{theirs.method} [{theirs.source}]",
                        name,
                        Cell(percent(mine), mine.mean, described(mine), tuple(runs), summary=mine),
                        Cell(f"{theirs.values[name]:.1f}", theirs.values[name] / 100),
                        Cell(points(difference), difference),
                        Cell(percent(best), best.mean, described(best), tuple(runs), summary=best)
                        if best
                        else Cell(GAP),
                        theirs.protocol.get("epoch", "not stated"),
                        differing or "none known",
                    ]
                )
    head = [
        "row",
        "published",
        "task",
        "ours, %",
        "theirs, %",
        "difference",
        f"ours, {BEST}, %",
        "their epoch",
        "protocol factors that differ",
    ]
    return plain("Published figures repeated", head, lines, "Accuracy in %, differences in points.") if lines else None


def _common_figures(row: Row, theirs) -> list[tuple[str, Summary, Summary | None, list[Run]]]:
    """Tasks and means that both have: name, ours, ours at the best test epoch (if measured), and the runs."""
    entries = []
    for benchmark in benchmarks([row]):
        for name, weights in benchmark.columns.items():
            if name in theirs.values and (mine := row.summary(weights)):
                runs = [run for place in weights for run in row.cells[place].values()]
                entries.append((name, mine, row.summary(weights, best=True), runs))
    return entries
