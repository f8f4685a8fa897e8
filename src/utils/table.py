"""A table that people read in a terminal, paste into a document, or pass on to a program."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

MARKDOWN_RULES = {"l": "---", "r": "--:", "c": ":-:"}
GAP = "  "
EMPTY = ("", "-")
PADDING = {"l": str.ljust, "r": str.rjust, "c": str.center}


@dataclass(frozen=True)
class Table:
    """Rows of text under the names of their columns.

    Cells are Markdown: what is in `backticks` is printed without them where it is read as text.

    Attributes:
        align: of each column: "l" (left), "r" (right) or "c" (centre).
        below: columns whose cells go below their row where a terminal is too narrow for it -> what stands before them.
        note: text after the table.
        in_json: columns for programs, beside the others or in the place of those of the same name.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    below: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    in_json: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def text(self, width: int = 0) -> str:
        """Aligned columns; with ``width``, lines of at most that many characters where ``below`` allows it."""
        table = self._without_backticks()
        narrow = width and self.below and table._width() > width
        lines = table._narrow(width) if narrow else table._lines()
        return "\n".join([*lines, *([""] if self.note else []), *_wrapped(self.note, width)])

    def markdown(self, padded: bool = False) -> str:
        """A Markdown table.

        Args:
            padded: aligned in the source, too.
        """
        head, *body = self._padded() if padded else [self.columns, *self.rows]
        rules = [MARKDOWN_RULES[kind] for kind in self.align]
        if padded:
            rules = [rule[0] + "-" * width + rule[2] for rule, width in zip(rules, self._widths(), strict=True)]
        lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rules)}|", *(f"| {' | '.join(row)} |" for row in body)]
        return "\n".join([*lines, *filter(None, [self.note])])

    def json(self) -> str:
        """A list of objects, column -> cell."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self._without_backticks().rows]
        for name, cells in self.in_json.items():
            for row, cell in zip(rows, cells, strict=True):
                row[name] = cell
        return json.dumps(rows, indent=1, ensure_ascii=False)

    def _without_backticks(self) -> "Table":
        return replace(self, rows=[[cell.replace("`", "") for cell in row] for row in self.rows])

    def _widths(self) -> list[int]:
        return [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]

    def _width(self) -> int:
        return sum(self._widths()) + len(GAP) * (len(self.columns) - 1)

    def _padded(self) -> list[list[str]]:
        """The names of the columns, and the rows, with cells of equal width."""
        how = [(PADDING[kind], width) for kind, width in zip(self.align, self._widths(), strict=True)]
        return [
            [pad(cell, width) for cell, (pad, width) in zip(row, how, strict=True)]
            for row in (self.columns, *self.rows)
        ]

    def _lines(self) -> list[str]:
        head, *rows = (GAP.join(row).rstrip() for row in self._padded())
        return [head, GAP.join("-" * width for width in self._widths()), *rows]

    def _narrow(self, width: int) -> list[str]:
        """Lines of the columns that stay, and after each those of the cells below it."""
        stay = [i for i, name in enumerate(self.columns) if name not in self.below]
        upper = Table(
            [self.columns[i] for i in stay],
            [[row[i] for i in stay] for row in self.rows],
            "".join(self.align[i] for i in stay),
        )
        head, rule, *lines = upper._with_shorter_names(width)._lines()
        both = ((line, *self._below(row, width)) for line, row in zip(lines, self.rows, strict=True))
        return [head, rule, *(line for lines in both for line in lines)]

    def _below(self, row: Sequence[str], width: int) -> list[str]:
        cells = [
            self.below[name] + cell
            for name, cell in zip(self.columns, row, strict=True)
            if name in self.below and cell not in EMPTY
        ]
        text = "; ".join([*(cell.rstrip(".") for cell in cells[:-1]), *cells[-1:]])
        return _wrapped(text, width, "    ")

    def _with_shorter_names(self, width: int) -> "Table":
        """The name of the column that is wide because of it alone, cut so that the table fits, if that is enough."""
        cells = [max((len(row[i]) for row in self.rows), default=0) for i in range(len(self.columns))]
        longest = max(range(len(cells)), key=lambda i: len(self.columns[i]) - cells[i])
        name, excess = self.columns[longest], self._width() - width
        if excess <= 0 or len(name) - excess <= cells[longest]:
            return self
        columns = [*self.columns]
        columns[longest] = f"{name[: len(name) - excess - 1]}…"
        return replace(self, columns=columns)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    if not width:
        return text.splitlines()
    wrapper = textwrap.TextWrapper(
        width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line for paragraph in text.splitlines() for line in wrapper.wrap(paragraph) or [""]]
