"""What ``vitune robustness`` does: accuracy on shifted test sets, of every run."""

import argparse
import statistics
from dataclasses import asdict

from ...configs.config import ConfigError
from ..finished.request import read_request
from ..finished.run import open_runs
from ..finished.sets import open_sets_of
from ..finished.write import percent, write_study
from ..report.tables import Cell, Table, plain
from .accuracy import Row, interval, measure_all
from .picture import draw_robustness

TEXT = (
    "Top-1 in %, of several seeds the mean ± sample standard deviation. The mean of the shifted sets counts each set "
    "once. A set with some of the classes only is scored among those. Nothing here was used to choose anything."
)


def accuracy_table(rows: list[Row]) -> Table:
    """One line per row."""
    zero_shot = {id(row): statistics.mean(row.shifted) for row in rows if not row.runs}
    base = next(iter(zero_shot.values())) if len(zero_shot) == 1 else None
    head = ["method", "seeds", *rows[0].results[0], "mean shifted", "shifted - own"]
    head += ["above zero-shot"] if base is not None else []
    lines = []
    for row in rows:
        shifted = statistics.mean(row.shifted)
        line = [row.label, len(row.runs) or None, *map(_cell, row.accuracies.values()), _cell(row.shifted)]
        line.append(percent(shifted - statistics.mean(row.own)))
        line += [percent(shifted - base) if row.runs else None] if base is not None else []
        lines.append(line)
    return plain("Accuracy under shift", head, lines, TEXT)


def _cell(values: list[float]) -> Cell:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    mean = statistics.mean(values)
    return Cell(f"{100 * mean:.2f}{spread}", mean)


def interval_table(rows: list[Row]) -> Table:
    """One line per run and set."""
    lines = []
    for row in rows:
        for i, accuracies in enumerate(row.results):
            name = row.runs[i].label if row.runs else row.label
            for of, at in accuracies.items():
                low, high = interval(at)
                bounds = f"{100 * low:.2f} to {100 * high:.2f}"
                lines.append(
                    [name, of, percent(at.top1), bounds, percent(at.top5), percent(at.mean_per_class), at.images]
                )
    head = ["run", "set", "top-1", "95 % interval", "top-5", "mean per class", "images"]
    return plain("Every run on every set", head, lines, "In %. The interval is Wilson's, over test images.")


def perform(args: argparse.Namespace) -> None:
    request = read_request(args)
    if not request.sets:
        raise ConfigError("there is nothing to compare with: name other test sets by --on, or changes by --shift")
    runs = open_runs(request.runs, request.changes)
    sets = open_sets_of(runs, request.sets, request.mapping)
    if len(own := {test_sets[0].name for test_sets in sets}) > 1:
        raise ValueError(f"the runs are of different tasks ({', '.join(sorted(own))}): compare those of one")
    rows = measure_all(runs, {run.label: test_sets for run, test_sets in zip(runs, sets, strict=True)})
    folder = request.folder(runs[0], "robustness")
    draw_robustness(rows, folder / "robustness.png")
    numbers = {
        "rows": [
            {
                "label": row.label,
                "runs": [str(run.folder.path) for run in row.runs],
                "seeds": [run.cfg.SEED for run in row.runs],
                "test": [
                    {of: asdict(at) | {"interval": interval(at)} for of, at in one.items()} for one in row.results
                ],
                "mean_shifted": row.shifted,
            }
            for row in rows
        ],
        "sets": {one.name: one.about for one in sets[0]},
    }
    tables = [accuracy_table(rows), interval_table(rows)]
    write_study(folder, "robustness", "Robustness", TEXT, tables, [folder / "robustness.png"], numbers)
