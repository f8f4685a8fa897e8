"""A table that people read in a terminal, paste into a document, or pass on to a program."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

MARKDOWN_RULES = {"l": "---", "r": "--:", "c": ":-:"}
PADDING = {"l": str.ljust, "r": str.rjust, "c": str.center}


@dataclass(frozen=True)
class Table:
    """Rows of text under the names of their columns.

    Cells are Markdown: what is in `backticks` is printed without them where it is read as text.

    Attributes:
        align: of each column: "l" (left), "r" (right) or "c" (centre).
        below: columns whose cells go below their row where a terminal is too narrow for it -> what stands before them.
        note: text after the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    below: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def text(self, width: int = 0) -> str:
        """Aligned columns; with ``width``, lines of at most so many characters where ``below`` allows it."""
        if any("`" in cell for row in self.rows for cell in row):
            return self._without_backticks().text(width)
        narrow = width and sum(self._widths()) + 2 * (len(self.columns) - 1) > width
        below = [i for i, column in enumerate(self.columns) if narrow and column in self.below]
        beside = [i for i in range(len(self.columns)) if i not in below]
        rule = ["-" * column for column in self._widths()]
        lines = [_joined(self._padded(self.columns), beside), _joined(rule, beside)]
        for row in self.rows:
            lines.append(_joined(self._padded(row), beside))
            cells = [self.below[self.columns[i]] + row[i] for i in below if row[i] not in ("", "-")]
            lines += (
                _wrapped("; ".join([*(cell.rstrip(".") for cell in cells[:-1]), cells[-1]]), width, "    ")
                if cells
                else []
            )
        return "\n".join([*lines, *([""] if self.note else []), *_wrapped(self.note, width)])

    def markdown(self, padded: bool = False) -> str:
        """A Markdown table.

        Args:
            padded: aligned in the source, too.
        """
        rows = [self._padded(row) for row in (self.columns, *self.rows)] if padded else [self.columns, *self.rows]
        head, *body = (f"| {' | '.join(row)} |" for row in rows)
        rules = [MARKDOWN_RULES[kind] for kind in self.align]
        if padded:
            rules = [rule[0] + "-" * width + rule[2] for rule, width in zip(rules, self._widths(), strict=True)]
        return "\n".join([head, f"|{'|'.join(rules)}|", *body, *filter(None, [self.note])])

    def json(self) -> str:
        """A list of objects, column -> cell."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self._without_backticks().rows]
        return json.dumps(rows, indent=1, ensure_ascii=False)

    def _without_backticks(self) -> "Table":
        return replace(self, rows=[[cell.replace("`", "") for cell in row] for row in self.rows])

    def _widths(self) -> list[int]:
        return [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]

    def _padded(self, row: Sequence[str]) -> list[str]:
        return [PADDING[kind](cell, width) for kind, cell, width in zip(self.align, row, self._widths(), strict=True)]


def _joined(cells: Sequence[str], some: Sequence[int]) -> str:
    return "  ".join(cells[i] for i in some).rstrip()


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    if not width:
        return text.splitlines()
    wrapper = textwrap.TextWrapper(
        width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line for paragraph in text.splitlines() for line in wrapper.wrap(paragraph) or [""]]
