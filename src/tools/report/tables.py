"""Tables as data, independent of the output format: cells with their text, sort key and origin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .benchmarks import Benchmark
from .collect import Collection, Run
from .marks import Marks, Remarks
from .rows import Place, Row
from .stats import Summary

GAP = "–"
BEST = "best test epoch"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        sort: the sort key; None is last.
        detail: lines with details.
        runs: the runs it comes from.
        marks: letters of the table's notes.
        best: whether it is the best of our rows in this column.
    """

    text: str
    sort: float | str | None = None
    detail: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    marks: tuple[str, ...] = ()
    summary: Summary | None = None
    best: bool = False


@dataclass
class Table:
    """A table with its title, a text above it, and notes for its letters.

    Attributes:
        numeric: whether the cells are numbers, per column.
    """

    title: str
    head: list[str]
    lines: list[list[Cell]] = field(default_factory=list)
    text: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    numeric: list[bool] = field(default_factory=list)


def plain(title: str, head: Sequence[str], lines: Sequence[Sequence], text: str = "") -> Table:
    """A table of text and numbers without marks."""
    cells = [[item if isinstance(item, Cell) else _plain(item) for item in line] for line in lines]
    numeric = [all(not isinstance(line[i].sort, str) for line in cells) for i in range(len(head))]
    return Table(title, list(head), cells, text, {}, numeric)


def _plain(item) -> Cell:
    if item is None:
        return Cell(GAP)
    return Cell(item, item) if isinstance(item, str) else Cell(f"{item:,}", item)


def percent(summary: Summary) -> str:
    """``75.12 ± 0.34``; without deviation for a single seed."""
    return f"{100 * summary.mean:.2f}" + (f" ± {100 * summary.sd:.2f}" if summary.sd is not None else "")


def points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def p_value(p: float | None) -> Cell:
    return Cell("too few tasks") if p is None else Cell(f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}", p)


def described(summary: Summary) -> tuple[str, ...]:
    """Mean, deviation, interval and n of a cell, as its details."""
    if summary.sd is None:
        return (f"{100 * summary.mean:.3f} %, n = {summary.n}: no deviation",)
    return (
        f"mean {100 * summary.mean:.3f} %, standard deviation {100 * summary.sd:.3f}, n = {summary.n}",
        f"95 % interval {100 * summary.low:.3f} to {100 * summary.high:.3f} %",
    )


def millions(count: float) -> str:
    return "0" if not count else f"{count / 1e6:.3g}"


def main_table(
    benchmark: Benchmark, rows: list[Row], collection: Collection, published: list = (), best=False
) -> Table:
    """Accuracy of every row on every task, the means, parameters, time, memory and seeds.

    Args:
        published: (published figures, why they are not comparable) for each line below ours.
        best: a separate table with the accuracies of the best test epoch.
    """
    remarks, marks = Remarks(benchmark, rows, collection), Marks()
    columns = benchmark.columns
    extra = [] if best else best_columns(benchmark, rows, published)
    rename = (lambda name: f"{name}, {BEST}") if best else str
    head = ["method", "backbone", *map(rename, columns), *[f"{name}, {BEST}" for name in extra]]
    head += ["trained, M", "trained with head, M", "training, s", "activation MiB an image", "seeds"]
    title = f"{benchmark.name}, {BEST}" if best else benchmark.name
    table = Table(title, head, numeric=[False, False, *[True] * (len(head) - 2)])
    for row in rows:
        letters = tuple(marks.letter(sentence) for sentence in remarks.of_row(row))
        line = [Cell(row.label, row.label, runs=tuple(row.runs), marks=letters), Cell(row.backbone, row.backbone)]
        for weights in columns.values():
            line.append(accuracy_cell(row, weights, remarks, marks, best))
        line += [accuracy_cell(row, columns[name], remarks, marks, True) for name in extra]
        table.lines.append(line + _costs(row, benchmark))
    _show_best(table)
    sources = list(dict.fromkeys(theirs.source for theirs, _ in published))
    for theirs, why in published:
        number = sources.index(theirs.source) + 1
        table.lines.append(_published_line(theirs, number, why, columns, extra, marks, best))
    table.notes = {str(i): f"published: {source}" for i, source in enumerate(sources, start=1)} | marks.notes()
    table.text = " ".join(["Accuracy in %.", *[f"All cells: {sentence}." for sentence in remarks.general]])
    if published:
        table.text += " Rows with a number in [brackets] are published figures; the number refers to their source."
    return table


def _show_best(table: Table) -> None:
    for column in range(len(table.head)) if len(table.lines) > 1 else ():
        means = [line[column].summary.mean for line in table.lines if line[column].summary]
        for line in table.lines:
            if line[column].summary and line[column].summary.mean == max(means):
                line[column] = replace(line[column], best=True)


def best_columns(benchmark: Benchmark, rows: list[Row], published: list) -> list[str]:
    """The columns with best-test-epoch figures, if any: means, or tasks if there is no mean."""
    columns = benchmark.means or benchmark.columns
    ours = [name for name, weights in columns.items() if any(row.summary(weights, best=True) for row in rows)]
    theirs = [name for name in columns for figures, _ in published if is_best(figures) and name in figures.values]
    return [name for name in columns if name in ours or name in theirs]


def is_best(theirs) -> bool:
    """Whether a published figure is from the epoch that was best on the test set."""
    return theirs.protocol.get("epoch") == "best on test"


def accuracy_cell(row: Row, weights: dict[Place, float], remarks: Remarks, marks: Marks, best: bool) -> Cell:
    summary = row.summary(weights, best)
    if summary is None:
        return Cell(GAP, detail=(f"missing: {', '.join(str(p) for p in weights if not row.values(p, best))}",))
    runs = tuple(run for place in weights for run in row.cells[place].values())
    sentences = dict.fromkeys(sentence for place in weights for sentence in remarks.of_cell(row, place))
    letters = tuple(marks.letter(sentence) for sentence in sentences)
    return Cell(percent(summary), summary.mean, described(summary), runs, letters, summary)


def _costs(row: Row, benchmark: Benchmark) -> list[Cell]:
    """Parameters, seconds and activations as means over tasks, and the number of seeds."""
    counts = sorted({len(row.cells[place]) for place in benchmark.places if place in row.cells})
    costs = [mean_cost(row, benchmark, of) for of in (trained_without_head, trained, seconds, activations)]
    texts = (millions, millions, lambda value: f"{value:,.1f}", lambda value: f"{value / 2**20:,.4g}")
    cells = [Cell(GAP) if c is None else Cell(show(c), c) for c, show in zip(costs, texts, strict=True)]
    return [*cells, Cell("–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))), counts[0])]


def trained_without_head(run: Run) -> float:
    return run.trained_without_head


def trained(run: Run) -> float:
    return run.trained


def seconds(run: Run) -> float:
    return run.seconds


def activations(run: Run) -> float | None:
    return run.activations


def mean_cost(row: Row, benchmark: Benchmark, of: Callable[[Run], float | None]) -> float | None:
    """The mean over tasks of the mean over seeds; with gaps, only if it is the same for every task.

    None also where a run does not say what it cost.
    """
    means = [_mean([of(run) for run in row.cells[place].values()]) for place in benchmark.places if place in row.cells]
    return _mean(means) if len(means) == len(benchmark.places) or len(set(means)) == 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values) / len(values)


def _published_line(
    theirs, number: int, why: list[str], columns: dict, extra: list[str], marks: Marks, best: bool
) -> list[Cell]:
    letters = tuple(marks.letter(f"not comparable: {reason}") for reason in why)
    label = f"{theirs.method} [{number}]" + (f", {BEST}" if is_best(theirs) else "")
    detail = (theirs.source, *(f"{key}: {value}" for key, value in theirs.protocol.items()))

    def cell(name: str, shown: bool) -> Cell:
        if not shown or name not in theirs.values:
            return Cell(GAP)
        return Cell(f"{theirs.values[name]:.1f}", theirs.values[name] / 100, detail, marks=letters)

    size = theirs.params_millions
    return [
        Cell(label, label, detail, marks=letters),
        Cell(theirs.backbone, theirs.backbone),
        *[cell(name, is_best(theirs) == best) for name in columns],
        *[cell(name, is_best(theirs)) for name in extra],
        Cell(GAP) if size is None else Cell(f"{size:.3g} (as printed)", size * 1e6),
        Cell(GAP),
        Cell(GAP),
        Cell(GAP),
        Cell(theirs.protocol.get("seeds", GAP)),
    ]
