"""Marks for figures that are not comparable with others: a letter at the cell, and a sentence below the table."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from string import ascii_lowercase

import simplejson

from ...data.pixels import pixels_from
from ...data.tasks import TASKS
from .benchmarks import Benchmark
from .collect import Collection, Run
from .rows import Place, Row, short


def _pixels(run: Run) -> str:
    pixels = pixels_from(run.result["pixels"])  # adds parts that older versions did not record
    return simplejson.dumps(dataclasses.asdict(pixels), sort_keys=True)


def _code(run: Run) -> str:
    revision, _, changes = run.result["environment"]["git"].partition("+")
    return (revision[:10] + (f"+{changes}" if changes else "")) or "unknown"


def _data(run: Run) -> str:
    images = ", ".join(f"{count:,} {split}" for split, count in sorted(run.data["images"].items()))
    return " ".join(f"{run.data['layout']} {run.data['version']}".split()) + f" ({images} images)"


# What should be the same in a whole table, and within each column.
IN_TABLE: dict[str, Callable[[Run], str]] = {
    "code version": _code,
    "torch version": lambda run: run.result["environment"]["packages"]["torch"],
    "device": lambda run: run.result["environment"]["device"],
    "precision": lambda run: run.result["precision"],
    "training split": lambda run: run.data["train_split"],
}
IN_COLUMN: dict[str, Callable[[Run], str]] = {"data": _data}
PIXELS = {"pixels": _pixels}


class Marks:
    """Letters for sentences, in order of first use."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}  # sentence -> letter

    def letter(self, sentence: str) -> str:
        return self.texts.setdefault(sentence, _letters(len(self.texts)))

    def notes(self) -> dict[str, str]:
        return {letter: sentence for sentence, letter in self.texts.items()}


def _letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + ascii_lowercase[number % 26]


class Remarks:
    """Sentences about a benchmark's cells and rows; those that apply to every cell are in ``general``."""

    def __init__(self, benchmark: Benchmark, rows: list[Row], collection: Collection) -> None:
        self.cells = {
            (row.name, place): _of_cell(row, place, benchmark, collection)
            for row in rows
            for place in benchmark.places
            if place in row.cells
        }
        in_table = IN_TABLE | (PIXELS if benchmark.alike else {})
        in_column = IN_COLUMN | ({} if benchmark.alike else PIXELS)
        self._deviating(in_table, rows, [benchmark.places], "in most of this table")
        self._deviating(in_column, rows, [(place,) for place in benchmark.places], "for most rows of this task")
        self.rows = {row.name: _mixes(in_table, row, benchmark) for row in rows}
        self.general = [
            sentence
            for sentence in dict.fromkeys(s for sentences in self.cells.values() for s in sentences)
            if all(sentence in sentences for sentences in self.cells.values())
        ]

    def of_cell(self, row: Row, place: Place) -> list[str]:
        return [sentence for sentence in self.cells[row.name, place] if sentence not in self.general]

    def of_row(self, row: Row) -> list[str]:
        """Sentences about the row and all its cells: they also apply to a mean over these."""
        mine = [
            s
            for (name, _), sentences in self.cells.items()
            if name == row.name
            for s in sentences
            if s not in self.general
        ]
        return list(dict.fromkeys([*self.rows[row.name], *mine]))

    def _deviating(self, factors: dict, rows: list[Row], scopes: list[tuple[Place, ...]], where: str) -> None:
        for name, describe in factors.items():
            for scope in scopes:
                counted = Counter(describe(run) for row in rows for place in scope for run in _runs(row, place))
                if len(counted) < 2:
                    continue
                usual = counted.most_common(1)[0][0]
                for row in rows:
                    for place in scope:
                        for other in dict.fromkeys(describe(run) for run in _runs(row, place)):
                            if other != usual:
                                self.cells[row.name, place].append(_difference(name, other, usual, where))


def _runs(row: Row, place: Place) -> Iterable[Run]:
    return row.cells.get(place, {}).values()


def _difference(name: str, other: str, usual: str, where: str) -> str:
    if name != "pixels":
        return f"{name} {other}; {where} {usual}"
    theirs, ours = simplejson.loads(other), simplejson.loads(usual)
    keys = [key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)]
    changes = ", ".join(f"{key} {theirs.get(key)} instead of {ours.get(key)}" for key in sorted(keys))
    return f"other pixels than {where}: {changes}"


def _mixes(factors: dict, row: Row, benchmark: Benchmark) -> list[str]:
    """Factors that differ between a row's runs."""
    sentences = []
    for name, describe in factors.items():
        counted = Counter(describe(run) for place in benchmark.places for run in _runs(row, place))
        if len(counted) > 1 and name == "pixels":
            sentences.append(f"the row mixes {len(counted)} ways of making pixels")
        elif len(counted) > 1:
            parts = ", ".join(f"{value} ({count} runs)" for value, count in counted.most_common())
            sentences.append(f"the row mixes {len(counted)} values of {name}: {parts}")
    return sentences


def _of_cell(row: Row, place: Place, benchmark: Benchmark, collection: Collection) -> list[str]:
    runs = row.cells[place]
    sentences = [collection.notes[run.folder] for run in runs.values() if run.folder in collection.notes]
    most = max(len(row.cells.get(other, {})) for other in benchmark.places)
    if len(runs) < most:
        sentences.append(f"{len(runs)} of {most} seeds")
    chosen = {repr(sorted(run.sweep.get("tuned", {}).items())) for run in runs.values()}
    if len(chosen) > 1:
        sentences.append("its seeds were trained with different settings chosen by the sweep")
    if place.task in TASKS:
        sentences += _unlike_benchmark(list(runs.values()), place)
    if any(run.data.get("left_out") for run in runs.values()):
        sentences.append("images that could not be decoded were left out")
    if any("+" in run.result["environment"]["git"] for run in runs.values()):
        sentences.append("made by code with uncommitted changes, which its version does not show")
    keys = [key for key in ("DATA.PERCENTAGE", "DATA.TRAIN_LIST", "DATA.TEST_LIST") if _own(runs.values(), key)]
    return sentences + [f"{short(key, [])} is not the benchmark's" for key in keys]


def _own(runs: Iterable[Run], key: str) -> bool:
    return any(run.config[key] not in (1.0, "") for run in runs)


def _unlike_benchmark(runs: list[Run], place: Place) -> list[str]:
    """Deviations from the benchmark: another training split, or another number of images."""
    task, sentences = TASKS[place.task], []
    if any(run.data["train_split"] != task.train_split for run in runs):
        sentences.append(f"not trained on the task's own training split ({task.train_split})")
    if "test" in task.sizes and any(run.data["images"].get("test") not in (None, task.sizes["test"]) for run in runs):
        sentences.append("the number of test images is not the benchmark's")
    return sentences
