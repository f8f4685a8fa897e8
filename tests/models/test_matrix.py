"""Every method on a small network of every family and variant: what the generated table says is what happens."""

import pytest

from src.models.vit_models import METHODS
from src.tools.list import matrix
from src.tools.list.cells import Cell, examine

SPECIMENS = matrix.specimens()
FOUND = matrix.read()
REGENERATE = "where that is right, generate the table again: python docs/matrix.py"


def told(cell: Cell | None) -> str:
    """A cell in words."""
    if cell is None:
        return "not there"
    return f"{cell.mark}, {cell.parameters:,} parameters" + (f": {cell.reason}" if cell.reason else "")


@pytest.mark.parametrize("title", SPECIMENS)
def test_every_method_does_what_the_table_says(title):
    changed = []
    for method in METHODS:
        was = FOUND.get(title, {}).get(method)
        try:
            now = examine(method, SPECIMENS[title])
        except Exception as error:  # a fault in any cell must not hide those in others
            changed.append(f"{method}: {type(error).__name__}: {error}")
            continue
        if now != was:
            changed.append(f"{method}: was {told(was)}; is {told(now)}")
    assert not changed, "\n".join([f"on {title}:", *changed, REGENERATE])


def test_the_table_has_nothing_else():
    assert list(FOUND) == list(SPECIMENS)
    assert all(list(row) == list(METHODS) for row in FOUND.values())
