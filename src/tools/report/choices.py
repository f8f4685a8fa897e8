"""What sweeps chose on the validation images, from how many candidates, with how many ties."""

from .rows import Row, short, text
from .tables import GAP, Cell, Table, plain


def choices_table(rows: list[Row]) -> Table | None:
    """One line per row, task and choice; None where no run was chosen by a sweep."""
    lines, rules = [], {}
    for row in rows:
        for place, cell in row.cells.items():
            said = {}
            for run in cell.values():
                if selection := run.sweep.get("selection"):
                    said.setdefault(repr(run.sweep["tuned"]), (run, selection, []))[2].append(run.seed)
            for run, selection, seeds in said.values():
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
    val = next((one.get("val") for one in candidates if one.get("tuned") == tuned), None)
    settings = ", ".join(f"{short(key, tuned)} {text(value)}" for key, value in tuned.items())
    return [
        settings,
        Cell(f"{100 * val:.2f}", val) if isinstance(val, float | int) else Cell(GAP),
        len(candidates),
        selection.get("ties", 0),
        selection.get("stopped", 0),
        len(selection.get("failed", [])),
    ]
