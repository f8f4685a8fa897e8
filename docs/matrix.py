"""Try every method on every kind of network, and write what was found: matrix.json, the page, and README's table.

    python docs/matrix.py                   all, in a minute or two
    python docs/matrix.py Swin "Swin V2"    these networks alone

A test tries every cell again and compares.
"""

import logging
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402

from src.models.vit_models import METHODS  # noqa: E402
from src.tools.list import matrix  # noqa: E402
from src.tools.list.cells import FOLDS, REFUSED, Cell  # noqa: E402
from src.tools.list.specimens import SPECIMENS, Specimen  # noqa: E402
from src.utils.table import Table  # noqa: E402

PAGE = ROOT / "docs" / "pages" / "matrix.md"
README = ROOT / "README.md"
PLACE = re.compile(r"(?<=<!-- matrix -->\n).*?(?=<!-- end -->)", re.S)
TEXT = """# Methods on networks

Every method, tried on a small network of every kind: does it attach, does every trained parameter get a gradient, does
training start where the method says, does what was learned load into a new model and compute the same, does it fold
into a plain network of timm to one in a million? `python docs/matrix.py` makes this page, and a test tries every cell
again.

- ● works, and folds into a plain network of timm (`vitune merge`)
- ○ works, and stays a part of the network
- * does not start at the pre-trained network: the method starts at random values
- a number alone: refused; beside ○: folds elsewhere, but not here. The reasons are below each table.

All with the methods' default keys: others may find what the defaults do not, such as other `TARGETS`."""


def main(titles: list[str]) -> None:
    """Try the methods on all specimens, or on those of these titles."""
    logging.disable()
    torch.set_num_threads(1)  # networks this small gain nothing from more
    known, specimens = matrix.read(), matrix.specimens()
    again = titles or specimens
    found = {title: matrix.row_of(new) if title in again else known[title] for title, new in specimens.items()}
    matrix.write(found)
    PAGE.write_text(page(found), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8"), found), encoding="utf-8")


def page(found: dict[str, matrix.Row]) -> str:
    """The whole table, in sections."""
    return "\n\n".join([TEXT, *(section(name, some, found) for name, some in SPECIMENS.items())]) + "\n"


def section(name: str, specimens: list[Specimen], found: dict[str, matrix.Row]) -> str:
    """Some networks: a row for each method, and the reasons of what does not work."""
    numbers: dict[str, int] = {}
    for specimen in specimens:
        for cell in found[specimen.title].values():
            if cell.reason:
                numbers.setdefault(cell.reason, len(numbers) + 1)
    rows = [
        (f"`{method}`", *(mark(method, found[specimen.title][method], numbers) for specimen in specimens))
        for method in METHODS
    ]
    table = Table(("method", *(specimen.title for specimen in specimens)), rows, "l" + "c" * len(specimens))
    names = ", ".join(f"{specimen.title}: `{specimen.name}`" for specimen in specimens)
    reasons = "\n".join(f"{number}. {code(reason)}" for reason, number in numbers.items())
    return f"## {name}\n\n{table.markdown()}\n\nThe networks are narrow ones of {names}.\n\n{reasons}"


def mark(method: str, cell: Cell, numbers: dict[str, int]) -> str:
    number = str(numbers[cell.reason]) if cell.reason else ""
    if cell.mark == REFUSED:
        return number
    sign = "●" if cell.mark == FOLDS else "○"
    return f"{sign}{'' if METHODS[method].starts_pretrained else '*'} {number}".strip().replace("*", "\\*")


def code(reason: str) -> str:
    """A reason with the names of modules and keys as code."""
    return re.sub(r"(?<![\w`])(\w+(?:\.\w+)+|[A-Z_]{4,}|\w+_\w+)(?![\w`])", r"`\1`", reason)


def readme(text: str, found: dict[str, matrix.Row]) -> str:
    return PLACE.sub(lambda _: f"{matrix.families_table(found).markdown()}\n", text)


if __name__ == "__main__":
    main(sys.argv[1:])
