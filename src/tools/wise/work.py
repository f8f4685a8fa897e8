"""What ``vitune wise`` does: a curve of accuracy over alpha for every run, and the alpha that validation chooses."""

import argparse
from dataclasses import asdict

from ...configs.config import ConfigError
from ..finished.request import read_request
from ..finished.run import open_run, open_runs
from ..finished.sets import open_sets_of
from ..finished.write import percent, write_study
from ..report.tables import Table, plain
from .curve import Curve, curve
from .picture import draw_curves

TEXT = (
    "At alpha 0 the model is the pre-trained one, at alpha 1 the tuned one. alpha is chosen by validation accuracy "
    "alone, of equals the smallest; test sets play no part in it. Accuracies are top-1; the mean of the shifted sets "
    "counts each set once, the own one not. The area is what own and mean shifted accuracy dominate together, over all "
    "alphas, 1 at most."
)


def parse_alphas(text: str) -> list[float]:
    """Raises ConfigError unless these are different numbers in [0, 1]."""
    try:
        alphas = sorted({float(part) for part in text.replace(",", " ").split()})
    except ValueError:
        alphas = []
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise ConfigError(f"--alphas {text!r}: these must be numbers from 0 to 1, separated by spaces")
    return alphas


def curve_table(one: Curve) -> Table:
    """One line per alpha."""
    head = [
        "alpha",
        *(["validation"] if one.validated else []),
        *one.tested,
        *(["mean shifted"] if one.shifted else []),
    ]
    lines = []
    for i, alpha in enumerate(one.alphas):
        columns = [one.validated[i].top1] if one.validated else []
        columns += [at[i].top1 for at in one.tested.values()]
        columns += [one.shifted[i]] if one.shifted else []
        mark = " (chosen)" if i == one.chosen else ""
        lines.append([f"{alpha:g}{mark}", *map(percent, columns)])
    start = f"the head at alpha 0 is {one.head}" if one.head else "the head stays the tuned one"
    return plain(one.run.label, head, lines, f"{one.run.folder.path}; {start}; top-1 in %.")


def summary_table(curves: list[Curve]) -> Table:
    """One line per run: its ends, and what is chosen."""
    head = [
        "run",
        "alpha",
        "own, tuned",
        "own, chosen",
        "shifted, alpha 0",
        "shifted, tuned",
        "shifted, chosen",
        "area",
    ]
    lines = []
    for result in curves:
        own, shifted, at = result.own, result.shifted or [None] * len(result.own), result.chosen
        chosen = (
            (None, None, None) if at is None else (f"{result.alphas[at]:g}", percent(own[at]), percent(shifted[at]))
        )
        first = percent(shifted[0]) if result.alphas[0] == 0 else None
        ends = (percent(own[-1]), percent(shifted[-1])) if result.alphas[-1] == 1 else (None, None)
        area = None if result.area is None else f"{result.area:.4f}"
        lines.append([result.run.label, chosen[0], ends[0], chosen[1], first, ends[1], chosen[2], area])
    return plain("What is chosen", head, lines, "top-1 in %.")


def numbers_of(result: Curve) -> dict:
    """The data of a curve."""
    return {
        "run": str(result.run.folder.path),
        "label": result.run.label,
        "head_at_alpha_0": result.head or "tuned",
        "alphas": result.alphas,
        "validation": result.validated and [asdict(at) for at in result.validated],
        "test": {name: [asdict(at) for at in accuracies] for name, accuracies in result.tested.items()},
        "mean_shifted": result.shifted,
        "chosen": None if result.chosen is None else {"index": result.chosen, "alpha": result.alphas[result.chosen]},
        "area": result.area,
        "own_at_shifted_of_alpha_0": result.own_at_start_shift,
        "mean_over_alpha": {
            name: _mean([at.top1 for at in accuracies], result.alphas) for name, accuracies in result.tested.items()
        },
    }


def _mean(y: list[float], x: tuple[float, ...]) -> float | None:
    """The area under y(x) by trapezoids, over the length of x."""
    if len(x) < 2:
        return None
    area = sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))
    return area / (x[-1] - x[0])


def perform(args: argparse.Namespace) -> None:
    request = read_request(args)
    alphas = parse_alphas(args.alphas)
    runs = open_runs(request.runs, request.changes)
    start = open_run(args.start, request.changes, runs[0].backbones) if args.start else None
    curves, about = [], {}
    for run, sets in zip(runs, open_sets_of(runs, request.sets, request.mapping), strict=True):
        about[str(run.folder.path)] = {test_set.name: test_set.about for test_set in sets}
        curves.append(curve(run, sets, alphas, start, args.head_only))
    folder = request.folder(runs[0], "wise")
    draw_curves(curves, folder / "wise.png")
    tables = [*map(curve_table, curves), summary_table(curves)]
    if any(each.chosen is None for each in curves):
        tables[-1].text += " No alpha is chosen for runs that trained on their validation images."
    numbers = {"curves": [numbers_of(each) for each in curves], "sets": about, "head_only": args.head_only}
    write_study(folder, "wise", "Weight-space ensembles", TEXT, tables, [folder / "wise.png"], numbers)
