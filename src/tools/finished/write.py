"""The files of a study: numbers as JSON, tables as Markdown, pictures beside them."""

from collections.abc import Sequence
from pathlib import Path

from ...engine.environment import environment
from ...utils.io import write_json, write_text
from ..report.formats import markdown, terminal
from ..report.tables import Cell, Table


def write_study(
    folder: Path, name: str, title: str, text: str, tables: Sequence[Table], pictures: Sequence[Path], numbers: dict
) -> None:
    """Write ``<name>.json`` and ``<name>.md`` into ``folder``, and print the tables.

    Args:
        pictures: files in ``folder``, drawn already.
        numbers: the data of tables and pictures; versions, machine and the command are added.
    """
    shown = "".join(f"\n![{path.stem}]({path.name})\n" for path in pictures)
    write_json(folder / f"{name}.json", numbers | {"environment": environment()})
    write_text(folder / f"{name}.md", f"# {title}\n\n{text}\n{shown}\n" + "\n".join(map(markdown, tables)))
    print("\n\n".join(terminal(table).strip("\n") for table in tables))
    print(f"\nwrote {folder / name}.md, .json{''.join(f', {path.name}' for path in pictures)}")


def percent(fraction: float | None) -> Cell | None:
    """A table's cell; None is a gap."""
    return None if fraction is None else Cell(f"{100 * fraction:.2f}", fraction)
