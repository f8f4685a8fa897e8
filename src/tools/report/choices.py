"""What sweeps chose on validation images, from how many candidates and with how many ties."""

from .rows import Row, short, text
from .tables import GAP, Cell, Table, plain


def choices_table(rows: list[Row]) -> Table | None:
    """One line per row, task and choice; None if no settings were chosen by a sweep."""
    lines, rules = [], {}
    for row in rows:
        for place, cell in row.cells.items():
            choices = {}
            for run in cell.values():
                if selection := run.sweep.get("selection"):
                    choices.setdefault(repr(run.sweep["tuned"]), (run, selection, []))[2].append(run.seed)
            for run, selection, seeds in choices.values():
                rules[selection.get("rule", "")] = None
                lines.append([row.name, str(place), *_chosen(run.sweep["tuned"], selection), ", ".join(seeds)])
    head = [
        "row",
        "task",
        "chosen",
        "validation, %",
        "candidates",
        "with the best value",
        "stopped early",
        "failed",
        "seeds",
    ]
    return plain("Chosen on validation", head, lines, " ".join(filter(None, rules))) if lines else None


def _chosen(tuned: dict, selection: dict) -> list:
    candidates = selection.get("candidates", [])
    val = next((candidate.get("val") for candidate in candidates if candidate.get("tuned") == tuned), None)
    settings = ", ".join(f"{short(key, tuned)} {text(value)}" for key, value in tuned.items())
    return [
        settings,
        Cell(f"{100 * val:.2f}", val) if isinstance(val, float | int) else Cell(GAP),
        len(candidates),
        selection.get("ties", 0),
        selection.get("stopped", 0),
        len(selection.get("failed", [])),
    ]
