"""What is missing in the tables, why if known, and the command that produces it."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...configs.config import keys_of
from ...configs.keys import TASK
from ...data.tasks import TASKS, find_task
from .benchmarks import Benchmark
from .collect import SWEEP, Collection, Run
from .rows import METHOD_KEYS, Place, Row
from .tables import Table, plain

MOST_COMMANDS = 12  # in the terminal


@dataclass(frozen=True)
class Gap:
    """A run that should be there."""

    row: str
    task: str
    seed: str
    why: str
    command: str


def missing(rows: list[Row], tables: list[Benchmark], collection: Collection, wanted: frozenset[str]) -> list[Gap]:
    """Runs in sweeps' plans that the folders lack, and gaps in rows without a plan."""
    planned = [gap for place, plan in collection.plans.items() for gap in _of_plan(place[0], plan, collection, wanted)]
    sweeps = {name for _, name in collection.plans}
    gaps = list(planned)
    for benchmark in tables:
        for row in benchmark.rows(rows):
            if row.sweep not in sweeps:
                gaps += _of_row(row, benchmark, collection)
    named = " ".join(gap.command + gap.why for gap in gaps)
    for folder, config in collection.configs.items():
        if not (folder / "result.json").exists() and str(folder) not in named and not (folder / SWEEP).is_file():
            task = _task(config)
            if not wanted or task in wanted:
                gaps.append(Gap(_method(config), task, str(config["SEED"]), "unfinished", _resume(folder)))
    return list(dict.fromkeys(gaps))


def missing_table(gaps: list[Gap]) -> Table | None:
    lines = [[gap.row, gap.task, gap.seed, gap.why, gap.command] for gap in gaps]
    description = "Run each command in the repository's folder. A sweep's command continues where the sweep stopped."
    return plain("Missing", ["row", "task", "seed", "why", "command"], lines, description) if lines else None


def missing_text(gaps: list[Gap]) -> str:
    """The same for the terminal: each command below a description of what it produces."""
    commands: dict[str, list[Gap]] = {}
    for gap in gaps:
        commands.setdefault(gap.command, []).append(gap)
    lines = []
    for command, some in list(commands.items())[:MOST_COMMANDS]:
        what = f"{some[0].row}, {some[0].task}, seed {some[0].seed}: {some[0].why}".replace(", , seed :", ":")
        lines += [what + (f", and {len(some) - 1:,} more" if len(some) > 1 else ""), f"    {command}"]
    more = len(commands) - MOST_COMMANDS
    lines += [f"... and {more:,} more commands, all of them in report.md"] if more > 0 else []
    return "\n".join([f"missing: {len(gaps):,}", *lines]) if gaps else ""


def unused_table(collection: Collection) -> Table | None:
    lines = [[str(folder), why] for folder, why in sorted(collection.unused.items())]
    description = "Folders that are not used in any table."
    return plain("Not used", ["folder", "why"], lines, description) if lines else None


def _of_plan(base: Path, plan: dict, collection: Collection, wanted: frozenset[str]) -> list[Gap]:
    gaps = []
    finished = [run for run in collection.tests if run.sweep.get("sweep") == plan["sweep"]]
    for cell in plan["cells"]:
        if wanted and cell["task"] not in wanted:
            continue
        runs = [run for run in finished if run.sweep["over"] == cell["over"]]
        for seed in map(str, cell["seeds"]):
            if not any(has_seed(run.config, seed) for run in runs):
                gaps.append(
                    Gap(_cell_name(cell), cell["task"], seed, cell.get("reason") or "not done", cell["command"])
                )
    gaps += [
        Gap(f"sweep {plan['sweep']}", "", "", f"failed: {item['reason']}: {base / item['folder']}", item["command"])
        for item in plan["failed"]
    ]
    return gaps


def _cell_name(cell: dict) -> str:
    return cell["row"] or "all"


def has_seed(config: dict[str, Any], label: str) -> bool:
    """Whether a run has the seed that a plan lists as ``42`` or ``SEED 1, DATA.SPLIT_SEED 1``."""
    settings = [part.split(None, 1) for part in label.split(",")] if " " in label else [["SEED", label]]
    return all(len(pair) == 2 and str(config.get(pair[0])) == pair[1].strip() for pair in settings)


def _of_row(row: Row, benchmark: Benchmark, collection: Collection) -> list[Gap]:
    seeds = dict.fromkeys(seed for place in benchmark.places for seed in row.cells.get(place, {}))
    return [
        _gap(row, place, seed, benchmark, collection)
        for place in benchmark.places
        for seed in seeds
        if seed not in row.cells.get(place, {})
    ]


def _gap(row: Row, place: Place, seed: str, benchmark: Benchmark, collection: Collection) -> Gap:
    if row.sweep:
        why = f"not done; the plan of its sweep, sweeps/{row.sweep}.json, is not in its OUTPUT_DIR"
        return Gap(row.label, str(place), seed, why, f"repeat the command that started the sweep {row.sweep}")
    command, note = command_for(row, place, seed, benchmark, collection)
    why = "not done"
    for folder, config in collection.configs.items():
        if _is(config, row, place, seed):
            if (folder / "result.json").exists():
                why = f"{collection.unused[folder]}: move {folder} away first"
            else:
                why = "unfinished"
                command = _resume(folder)
                note = ""
    return Gap(row.label, str(place), seed, why + (f"; {note}" if note else ""), command)


def _is(config: dict, row: Row, place: Place, seed: str) -> bool:
    same = all(config.get(key) == value for key, value in row.identity.items())
    return same and _task(config) == place.task and has_seed(config, seed)


def _task(config: dict) -> str:
    try:
        return find_task(str(config["DATA.NAME"])).name
    except ValueError:
        return str(config["DATA.NAME"])


def _method(config: dict) -> str:
    return " + ".join(str(config[key]) for key in METHOD_KEYS[:2] if config[key])


def _resume(folder: Path) -> str:
    return f"vitune train --run-dir {shlex.quote(str(folder))} --resume"


def command_for(row: Row, place: Place, seed: str, benchmark: Benchmark, collection: Collection) -> tuple[str, str]:
    """The ``vitune train`` command for a missing run, from the settings of the most similar run; and what to check."""
    sibling, note = _sibling(row, place, seed, benchmark), ""
    settings = dict(sibling.result["config"])
    if Place(sibling.task, sibling.shots) != place:
        settings = {key: value for key, value in settings.items() if key not in _of_one_task()}
        donor = next((run for run in collection.tests if (run.task, run.shots) == (place.task, place.shots)), None)
        settings["DATA.NAME"] = donor.config["DATA.NAME"] if donor else place.task
        if place.shots:
            settings["DATA.SHOTS"] = place.shots
        if donor and donor.config["DATA.DATAPATH"]:
            settings["DATA.DATAPATH"] = donor.config["DATA.DATAPATH"]
        note = _own_settings(row, sibling)
    settings |= dict(zip(("SEED", "DATA.SPLIT_SEED"), _seeds(row, seed), strict=True))
    if not settings["DATA.SPLIT_SEED"]:
        del settings["DATA.SPLIT_SEED"]
    return train_command(settings), note


def _of_one_task() -> set[str]:
    """Settings that apply to one task only; the folder of the data may apply to several."""
    return {*keys_of(TASK)} - {"DATA.DATAPATH"}


def train_command(settings: dict[str, Any]) -> str:
    return "vitune train " + " ".join(f"{key} {shlex.quote(str(value))}" for key, value in settings.items())


def _seeds(row: Row, seed: str) -> tuple[int, int]:
    run = next(cell[seed] for cell in row.cells.values() if seed in cell)
    return run.config["SEED"], run.config["DATA.SPLIT_SEED"]


def _sibling(row: Row, place: Place, seed: str, benchmark: Benchmark) -> Run:
    """A run of the same task with another seed; else of the nearest task in the table, if possible with this seed."""
    if place in row.cells:
        return next(iter(row.cells[place].values()))
    position = benchmark.places.index(place)
    others = sorted(
        (p for p in benchmark.places if p in row.cells), key=lambda p: abs(benchmark.places.index(p) - position)
    )
    some = [row.cells[p] for p in others]
    return next((cell[seed] for cell in some if seed in cell), next(iter(some[0].values())))


def _own_settings(row: Row, sibling: Run) -> str:
    """A warning if the row's tasks have different settings."""
    keys = [
        key
        for key in sibling.config
        if key not in ("DATA.NAME", "DATA.SHOTS", "SEED", "DATA.SPLIT_SEED", "OUTPUT_DIR", *_of_one_task())
        and len({repr(run.config.get(key)) for run in row.runs}) > 1
    ]
    warning = (
        f"check {', '.join(keys)}: they differ between this row's tasks, and these values are {sibling.task}'s"
        if keys
        else ""
    )
    if sibling.task in TASKS and TASKS[sibling.task].group == "FGVC":
        warning = "; ".join(
            part for part in (warning, "check DATA.DATAPATH: it may differ between these tasks") if part
        )
    return warning
