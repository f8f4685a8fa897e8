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
    """How many methods work on each family of networks: on its usual variant, which is listed first, and at least."""
    by_family: dict[str, dict[str, Row]] = {family.title: {} for family in (*FAMILIES, UNKNOWN)}
    for title, specimen in specimens().items():
        by_family[specimen.family()][title] = found[title]
    rows = []
    for title, tried in by_family.items():
        if not tried:
            continue
        working = {variant: sum(cell.mark != REFUSED for cell in row.values()) for variant, row in tried.items()}
        folding = {variant: sum(cell.mark == FOLDS for cell in row.values()) for variant, row in tried.items()}
        rows.append((title, str(len(tried)), counted(working), counted(folding)))
    return Table(("family", "variants tried", f"of {len(METHODS)} methods, work", "fold away"), rows, "lrll")


def counted(variants: dict[str, int]) -> str:
    """The number of the first variant, and the lowest: "32 (fewest 19: parallel)"."""
    usual, fewest = next(iter(variants.values())), min(variants, key=variants.get)
    return f"{usual} (fewest {variants[fewest]}: {fewest})" if variants[fewest] < usual else str(usual)
