"""One self-contained HTML file: sortable, filterable tables, the runs of each cell, and the figures.

It loads nothing (its Content-Security-Policy forbids that too). Text from runs is never interpreted as markup: it is
escaped in the page, and page.js inserts data as text only.
"""

import base64
import re
from html import escape
from pathlib import Path
from typing import Any

import simplejson

from ...configs.config import keys_of
from ...configs.keys import MACHINE
from .collect import Collection, Run
from .contents import Report
from .formats import VERBATIM
from .stats import RULES
from .tables import Cell, Table

FOLDER = Path(__file__).parent
LONG_TEXT, LONG_NAME = 48, 14  # characters


def page(report: Report, collection: Collection, folder: Path) -> str:
    """The page's text; pictures are read from ``folder``/figures."""
    data = _Data()
    pictures = [_picture(folder / "figures" / f"{name}.png", text) for name, text in report.pictures.items()]
    names = [*(table.title for table in report.main), "Figures", *(table.title for table in report.others)]
    parts = {
        "title": escape(report.title),
        "summary": "".join(f"<p>{escape(text)}</p>" for text in report.summary),
        "contents": "\n".join(
            f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in names if name != "Figures" or pictures
        ),
        "rules": escape(RULES),
        "main": "\n".join(_table(table, data) for table in report.main),
        "pictures": f'<section id="figures"><h2>Figures</h2>{"".join(pictures)}</section>' if pictures else "",
        "others": "\n".join(_table(table, data) for table in report.others),
        "style": (FOLDER / "page.css").read_text(encoding="utf-8"),
        "script": (FOLDER / "page.js").read_text(encoding="utf-8"),
    }
    parts["data"] = embedded(data.content())
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def embedded(content: Any) -> str:
    """JSON for a script element: no "<" in it can end the element."""
    text = simplejson.dumps(content, separators=(",", ":"), ignore_nan=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Data:
    """The data of cells and runs for page.js; facts shared by many runs are stored once."""

    def __init__(self) -> None:
        self.cells: list[dict] = []
        self.runs: list[dict] = []
        self.facts: dict[str, int] = {}
        self.index: dict[Path, int] = {}

    def content(self) -> dict:
        return {"cells": self.cells, "runs": self.runs, "facts": [simplejson.loads(fact) for fact in self.facts]}

    def cell(self, cell: Cell, table: Table) -> int:
        marks = [f"{letter}: {table.notes[letter]}" for letter in cell.marks]
        runs = [self._run(run) for run in cell.runs]
        self.cells.append({"detail": cell.detail, "marks": marks, "runs": runs})
        return len(self.cells) - 1

    def _run(self, run: Run) -> int:
        if run.folder not in self.index:
            self.index[run.folder] = len(self.runs)
            about = dict.fromkeys((*keys_of(MACHINE), "DATA.NAME", "SEED"))
            config = {key: value for key, value in run.result["config"].items() if key not in about}
            environment = run.result["environment"]
            versions = {"code": environment["git"] or "unknown", "device": environment["device"]}
            versions |= environment["packages"]
            self.runs.append(
                {
                    "seed": run.seed,
                    "task": run.task,
                    "accuracy": run.accuracy,
                    "folder": str(run.folder),
                    "config": self._fact(config),
                    "pixels": self._fact(run.result["pixels"]),
                    "versions": self._fact(versions),
                }
            )
        return self.index[run.folder]

    def _fact(self, fact: dict) -> int:
        texts = {str(key): str(value) for key, value in fact.items()}
        return self.facts.setdefault(simplejson.dumps(texts), len(self.facts))


def _table(table: Table, data: _Data) -> str:
    head, boxes = [], []
    for column, (name, numeric) in enumerate(zip(table.head, table.numeric, strict=True)):
        kinds = " ".join(["number"] * numeric + ["long-name"] * (len(name) > LONG_NAME))
        head.append(f'<th scope="col" class="{kinds}"><button type="button">{escape(name)}</button></th>')
        if column:
            boxes.append(f'<label><input type="checkbox" data-column="{column}" checked> {escape(name)}</label>')
    body = "\n".join(f"<tr>{''.join(_cell(*item, data) for item in _line(table, line))}</tr>" for line in table.lines)
    notes = "".join(f"<p><sup>{letter}</sup> {escape(sentence)}</p>" for letter, sentence in table.notes.items())
    return f"""<section class="table" id="{_anchor(table.title)}">
<h2>{escape(table.title)}</h2>
<p class="caption">{escape(table.text)}</p>
<div class="tools"><label>filter <input type="search" aria-label="filter rows"></label><span class="count"></span>
<details><summary>columns</summary><div>{"".join(boxes)}</div></details></div>
<div class="frame"><table><thead><tr>{"".join(head)}</tr></thead>
<tbody>
{body}
</tbody></table></div>
<div class="notes">{notes}</div>
</section>"""


def _line(table: Table, line: list[Cell]) -> list[tuple]:
    return [(cell, i, table) for i, cell in enumerate(line)]


def _cell(cell: Cell, column: int, table: Table, data: _Data) -> str:
    tag = "th" if column == 0 else "td"
    kinds = ["number"] * table.numeric[column] + ["best"] * cell.best + ["long"] * (len(cell.text) > LONG_TEXT)
    attributes = ' scope="row"' if column == 0 else ""
    attributes += f' class="{" ".join(kinds)}"' if kinds else ""
    attributes += f' data-sort="{escape(str(cell.sort))}"' if cell.sort is not None else ""
    if cell.detail or cell.runs or cell.marks:
        attributes += f' data-more="{data.cell(cell, table)}"'
    text = escape(cell.text)
    text = f"<code>{text}</code>" if table.head[column] in VERBATIM else text
    marks = f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else ""
    return f"<{tag}{attributes}>{text}{marks}</{tag}>"


def _picture(path: Path, caption: str) -> str:
    image = base64.b64encode(path.read_bytes()).decode()
    text = escape(caption)
    return f'<figure><img src="data:image/png;base64,{image}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
