"""The report: all tables and figures that the runs allow, as Markdown, LaTeX, CSV, pictures and an HTML page."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...configs.config import flatten, get_cfg
from ...configs.facts import methods_label
from ...configs.files import ConfigError
from ...utils.io import write_text
from . import comparing, figures, formats, page
from .benchmarks import Benchmark, benchmarks, tasks_named
from .choices import choices_table
from .collect import Collection, Run, collect
from .contents import Report
from .missing import missing, missing_table, missing_text, unused_table
from .rows import Row, group
from .stats import RULES
from .tables import Table, best_columns, is_best, main_table

ABLATION = "Rows that differ only in this: mean over the tasks that all values have, ± standard deviation over seeds."
ABLATION_OF_TUNING = (
    "Validation accuracy in tuning: per value, the best over everything else tuned, then the mean over tasks."
)


@dataclass(frozen=True)
class Options:
    """Options of the command line; ``published``: None for none, [] for the methods of our runs."""

    title: str = "Results"
    tasks: list[str] = field(default_factory=list)
    baseline: str = ""
    published: list[str] | None = None
    ablation: list[str] = field(default_factory=list)
    pair: list[str] = field(default_factory=list)


def write_report(places: Iterable[Path], to: Path, options: Options) -> str:
    """Read, compute and write; returns the text for the terminal.

    Raises:
        FileNotFoundError: a place does not exist, or none has runs.
        ValueError: an unknown task, row, key or method.
        WriteError: ``to`` cannot be written.
    """
    collection = collect(places)
    if not (collection.runs or collection.unused):
        raise FileNotFoundError(
            f"there are no runs (folders with a config.yaml) in {', '.join(str(place) for place in places)}"
        )
    report = build(collection, to, options)
    write_text(to / "report.md", _markdown(report))
    write_text(to / "report.tex", _latex(report))
    write_text(to / "report.csv", formats.runs_csv(collection, report.labels))
    write_text(to / "tables.csv", formats.long_csv(report.main))
    write_text(to / "report.html", page.page(report, collection, to))
    parts = [*map(formats.terminal, report.main), missing_text(report.gaps), *report.summary]
    return "\n\n".join([*filter(None, parts), f"written: {to}/report.html, .md, .tex, .csv, tables.csv, figures/"])


def build(collection: Collection, to: Path, options: Options) -> Report:
    """Build the tables, and draw the figures in ``to``/figures."""
    wanted = tasks_named(options.tasks)
    rows = [row for row in group(collection) if row.only(wanted)]
    for key in [*options.ablation, *options.pair]:
        _require_key(key, collection)
    tables = benchmarks(rows, wanted)
    if options.baseline:
        comparing.require_row(rows, options.baseline)
    report = Report(" ".join(options.title.split()), _summary(collection, wanted))
    report.labels = {run.folder: row.label for row in rows for run in row.runs}
    published = {table.name: _published(table, rows, options.published) for table in tables}
    for table in tables:
        mine, theirs = table.rows(rows), published[table.name]
        report.main.append(main_table(table, mine, collection, theirs))
        if best_columns(table, mine, theirs):
            some = [row for row in mine if any(row.values(place, best=True) for place in table.places)]
            best = [(entry, why) for entry, why in theirs if is_best(entry)]
            report.main.append(main_table(table, some, collection, best, best=True))
        report.others += [comparing.paired_tests(table, mine, options.baseline), comparing.ranks_table(table, mine)]
    for key in dict.fromkeys([*options.pair, "FREQFIT"]):
        report.others += comparing.pairs_tables(rows, key, tables)
    tuning = [run for run in collection.tuning if not wanted or run.task in wanted]
    for key in options.ablation:
        report.others += _ablation(rows, tables, tuning, key, to / "figures", report)
    report.others.append(_repeated(rows, report))
    report.gaps = missing(rows, tables, collection, wanted)
    report.others += [choices_table(rows), missing_table(report.gaps), unused_table(collection)]
    report.others = [table for table in report.others if table]
    report.pictures |= figures.draw_all(tables, rows, to / "figures")
    return report


def _ablation(
    rows: list[Row], tables: list[Benchmark], tuning: list[Run], key: str, folder: Path, report: Report
) -> list[Table]:
    """Tables over the final runs of each benchmark and over the tuning runs, with a figure each."""
    made = []
    for kind in dict.fromkeys(table.kind for table in tables):
        some = [table for table in tables if table.kind == kind]
        name = some[0].name.partition(",")[0]
        made.append((f"{name}: ablation over {key}", comparing.ablation(rows, key, some), ABLATION))
    made.append((f"Validation: ablation over {key}", comparing.ablation_of_tuning(tuning, key), ABLATION_OF_TUNING))
    made = [item for item in made if item[1]]
    for title, series, _ in made:
        report.pictures |= figures.draw_ablation(title, key, series, folder)
    if not made:
        report.summary.append(
            f"No ablation over {key}: no two rows differ in it and in nothing else on the same tasks."
        )
    return [comparing.ablation_table(*item) for item in made]


def _require_key(key: str, collection: Collection) -> None:
    axes = {axis for run in collection.runs for axis in (*run.sweep.get("over", {}), *run.sweep.get("tuned", {}))}
    keys = [*flatten(get_cfg()), *sorted(axes)]
    if key not in keys:
        near = difflib.get_close_matches(key, keys, 3, cutoff=0.4)
        raise ConfigError(
            f"{key!r} is neither a config key nor an axis of these sweeps; the nearest: {', '.join(near) or 'none'}"
        )


def _published(table: Benchmark, rows: list[Row], methods: list[str] | None) -> list[tuple]:
    """(Figures, why they are not comparable) for ``methods``, or our own, on our rows' backbones."""
    if methods is None or not table.kind:
        return []
    from .published import find, reasons  # its tables are read only where they are wanted

    mine = table.rows(rows)
    collected: dict[int, tuple] = {}
    for row in mine:
        name = methods_label(row.identity["MODEL.TRANSFER_TYPE"], row.identity["FREQFIT"])
        for entry in _find(find, table.kind, methods or [name], row.backbone, strict=bool(methods)):
            own = [other for other in mine if other.backbone == row.backbone] if methods else [row]
            results = [run.facts for run in comparing.runs_in(own, [table])]
            collected.setdefault(id(entry), (entry, reasons(results, entry)))
    return list(collected.values())


def _find(find: Callable, kind: str, methods: list[str], backbone: str, strict: bool) -> list:
    """Published figures; an unknown method is an error only if the user named it (``strict``)."""
    look = partial(find, kind, methods)
    try:
        return look(backbone)
    except ValueError:
        if strict:
            look("")  # an unpublished method is an error, a backbone is not
        return []


def _repeated(rows: list[Row], report: Report) -> Table | None:
    """Our figures beside the published ones that sweeps repeat."""
    if not any(row.runs[0].sweep.get("published") for row in rows):
        return None
    from .published import factors, named  # its tables are read only where they are wanted

    def figures_of(spec: dict) -> list:
        try:
            return named(spec)
        except ValueError as error:
            report.summary.append(str(error))
            return []

    return comparing.repro_table(rows, figures_of, factors)


def _summary(collection: Collection, wanted: frozenset[str]) -> list[str]:
    tests, tuning = len(collection.tests), len(collection.tuning)
    counts = f"{tests:,} runs with a test accuracy, {tuning:,} tuning runs, {len(collection.unused):,} unused folders."
    return [counts] + ([f"Only these tasks: {', '.join(sorted(wanted))}."] if wanted else [])


def _markdown(report: Report) -> str:
    parts = [f"# {formats.escape_markdown(report.title)}\n", *(formats.escape_markdown(s) for s in report.summary)]
    parts += ["", formats.escape_markdown(RULES), "", *map(formats.markdown, report.main)]
    parts += [
        f"![{formats.escape_markdown(caption)}](figures/{name}.png)\n" for name, caption in report.pictures.items()
    ]
    return "\n".join([*parts, *map(formats.markdown, report.others)])


def _latex(report: Report) -> str:
    head = f"% {report.title}\n% \\usepackage{{booktabs, graphicx}}\n% {RULES}\n"
    records = ("Missing", "Not used")
    return "\n".join([head, *(formats.latex(t) for t in [*report.main, *report.others] if t.title not in records)])
