"""The matrix: every method on every specimen, as it was last found, for tables.

matrix.json is generated: ``python docs/matrix.py`` tries every cell and writes it, with the pages made of it. A test
tries every cell again.
"""

import json
from pathlib import Path

from ...models.families import FAMILIES, UNKNOWN
from ...models.vit_models import METHODS
from ...utils.table import Table
from .cells import FOLDS, REFUSED, Cell, Fault, examine
from .specimens import SPECIMENS, Specimen

FILE = Path(__file__).with_name("matrix.json")
Row = dict[str, Cell]  # by method


def read() -> dict[str, Row]:
    """What was found on each specimen, by its title."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return {title: {method: Cell(*cell) for method, cell in row.items()} for title, row in found.items()}


def write(found: dict[str, Row]) -> None:
    """One line for each cell, so that a change shows which."""
    rows = []
    for title, row in found.items():
        cells = ",\n".join(f"  {json.dumps(method)}: {json.dumps(cell)}" for method, cell in row.items())
        rows.append(f" {json.dumps(title)}: {{\n{cells}\n }}")
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def row_of(specimen: Specimen) -> Row:
    """Every method tried on one network.

    Raises:
        Fault: something goes wrong; the message says which method on which network.
    """
    row = {}
    for method in METHODS:
        try:
            row[method] = examine(method, specimen)
        except Exception as error:  # whatever a method raises on a network is a fault; here it gets their names
            raise Fault(f"{method} on {specimen.title}: {type(error).__name__}: {error}") from error
    return row


def specimens() -> dict[str, Specimen]:
    """All of them by title."""
    return {specimen.title: specimen for section in SPECIMENS.values() for specimen in section}


def families_table(found: dict[str, Row]) -> Table:
    """How many methods work on each family of networks: on all variants that were tried, or on some."""
    by_family: dict[str, list[Row]] = {family.title: [] for family in (*FAMILIES, UNKNOWN)}
    for title, specimen in specimens().items():
        by_family[specimen.family()].append(found[title])
    rows = []
    for title, tried in by_family.items():
        if not tried:
            continue
        working = [[row[method].mark != REFUSED for row in tried] for method in METHODS]
        folding = [[row[method].mark == FOLDS for row in tried] for method in METHODS]
        rows.append((title, str(len(tried)), counted(working), counted(folding)))
    return Table(("family", "variants tried", f"of {len(METHODS)} methods, work", "fold away"), rows, "lrll")


def counted(methods: list[list[bool]]) -> str:
    """Of how many methods all are true, and of how many some: "20, on some variants 25"."""
    on_all, on_some = sum(map(all, methods)), sum(map(any, methods))
    return str(on_all) if on_all == on_some else f"{on_all}; on some variants {on_some}"
