"""The table of published figures that can be repeated."""

import math

from ...utils.table import Table
from ..repro.__main__ import TFLOPS
from ..repro.work import Row, rows

COLUMNS = ("recipe", "method", "runs", "GPU hours", "backbone", "published", "epoch", "source", "command")
BELOW = {"backbone": "", "published": "", "epoch": "epoch: ", "source": "by ", "command": ""}


def recipes_table(word: str = "", paper: str = "", method: str = "", task: str = "", tflops: float = TFLOPS) -> Table:
    """Every published row that a shipped config repeats.

    Args:
        word: only those of recipes, methods or sources with this in their name, whatever the case.
        paper: only of sources with this in their name.
        method: only of methods with this in their name.
        task: only this task of each row.
        tflops: what the GPU computes, for the hours.

    Raises:
        ValueError: an unknown task, or there are none.
    """
    chosen = [row for row in rows(method, task) if paper.lower() in row.theirs.source.lower() and _has(row, word)]
    if not chosen:
        raise ValueError(
            f"no recipe repeats such a published figure{f' ({word!r})' * bool(word)}: vitune list recipes shows all"
        )
    cells = [
        (
            row.file.stem,
            row.theirs.method,
            f"{row.runs:,}",
            _shown(row.hours(tflops)),
            row.theirs.backbone,
            row.figure if row.figure == "-" else f"{row.figure} %",
            row.theirs.protocol["epoch"],
            row.theirs.source,
            row.command,
        )
        for row in chosen
    ]
    note = f"hours of one GPU that computes {tflops:g} TFLOP/s all the time; vitune repro RECIPE prints what differs"
    return Table(COLUMNS, cells, "llrrlllll", BELOW, note)


def _shown(hours: float) -> str:
    if math.isnan(hours):
        return "?"
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.1g}"


def _has(row: Row, word: str) -> bool:
    return word.lower() in f"{row.file.stem} {row.theirs.method} {row.theirs.source}".lower()
