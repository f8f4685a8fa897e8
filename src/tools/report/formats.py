"""Tables as Markdown, LaTeX (booktabs), CSV and text for the terminal."""

import csv
import io
import shutil
from collections.abc import Iterable
from typing import Any

import simplejson

from ...utils.text import aligned
from .collect import METRICS, Collection, Run
from .tables import Cell, Table

_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$"} | {"\n": " ", "\r": " "})
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--"}
    | {
        "−": "$-$",
        "×": r"$\times$",
        "[": "{[}",
        "]": "{]}",
        "|": r"\textbar{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\n": " ",
        "\r": " ",
    }
)
# Columns that must be copied verbatim.
VERBATIM = ("command",)


def markdown(table: Table) -> str:
    """A heading, the text, the table, its notes."""
    head = [table.head, ["---:" if numeric else "---" for numeric in table.numeric]]
    lines = [[escape_markdown(name) for name in head[0]], head[1]]
    lines += [[_markdown_cell(cell, name) for cell, name in zip(line, table.head, strict=True)] for line in table.lines]
    text = [f"## {escape_markdown(table.title)}", ""]
    text += [escape_markdown(table.text), ""] if table.text else []
    text += [f"| {' | '.join(line)} |" for line in lines]
    notes = [f"- <sup>{letter}</sup> {escape_markdown(sentence)}" for letter, sentence in table.notes.items()]
    return "\n".join([*text, *([""] if notes else []), *notes, ""])


def escape_markdown(text: str) -> str:
    return text.translate(_MARKDOWN)


def _markdown_cell(cell: Cell, column: str) -> str:
    if column in VERBATIM and "`" not in cell.text:
        return f"`{cell.text}`".replace("|", "\\|").replace("\n", " ")
    text = escape_markdown(cell.text)
    return (f"**{text}**" if cell.best else text) + (f" <sup>{','.join(cell.marks)}</sup>" if cell.marks else "")


def latex(table: Table) -> str:
    r"""A ``table*`` environment for a document with \usepackage{booktabs, graphicx}."""
    lines = [" & ".join(map(escape_latex, table.head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_latex_cell, line)) + r" \\" for line in table.lines]
    notes = [f"$^{{{letter}}}$ {escape_latex(sentence)}." for letter, sentence in table.notes.items()]
    caption = " ".join([f"{escape_latex(table.title)}.", escape_latex(table.text), *notes]).strip()
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{caption}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in table.numeric)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    return text.translate(_LATEX)


def _latex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{escape_latex(cell.text)}}}" if cell.best else escape_latex(cell.text)
    return text + (f"$^{{{','.join(cell.marks)}}}$" if cell.marks else "")


def terminal(table: Table) -> str:
    """As wide as the terminal; columns that do not fit go below."""
    lines = [
        [cell.text + (f" [{','.join(cell.marks)}]" if cell.marks else "") for cell in line] for line in table.lines
    ]
    notes = [f"[{letter}] {sentence}" for letter, sentence in table.notes.items()]
    parts = [
        table.title,
        table.text,
        aligned([table.head, *lines], shutil.get_terminal_size((120, 40)).columns),
        *notes,
    ]
    return "\n".join(filter(None, parts))


def long_csv(tables: Iterable[Table]) -> str:
    """One line per cell of the main tables: unrounded fractions with deviation, interval and seeds."""
    lines = [["table", "row", "backbone", "column", "text", "mean", "sd", "low", "high", "n", "seeds", "marks"]]
    for table in tables:
        for line in table.lines:
            for name, cell in list(zip(table.head, line, strict=True))[2:]:
                s = cell.summary
                numbers = [s.mean, s.sd, s.low, s.high, s.n] if s else [cell.sort, *[None] * 4]
                seeds = " ".join(dict.fromkeys(run.seed for run in cell.runs))
                marks = "; ".join(table.notes[letter] for letter in cell.marks)
                lines.append([table.title, line[0].text, line[1].text, name, cell.text, *numbers, seeds, marks])
    return _csv(lines)


def runs_csv(collection: Collection, labels: dict[Any, str]) -> str:
    """One line per used run with all its facts; accuracies are fractions.

    Args:
        labels: folder -> the row that the run is in.
    """
    facts = [_facts(run, labels) | {"note": collection.notes.get(run.folder, "")} for run in collection.runs]
    head = list(dict.fromkeys(key for fact in facts for key in fact))
    return _csv([head, *[[fact.get(key, "") for key in head] for fact in facts]])


def _facts(run: Run, labels: dict[Any, str]) -> dict[str, Any]:
    result, cost = run.result, run.result["cost"]
    facts = {
        "folder": str(run.folder),
        "row": labels.get(run.folder, ""),
        "stage": "tune" if run.tuning else "final",
        "task": run.task,
        "shots": run.shots,
        "method": run.method,
        "backbone": run.backbone,
        "seed": run.seed,
        "metric": run.data["metric"],
        "accuracy": run.accuracy,
        "accuracy of": "val" if run.tuning else "test",
        "best test epoch accuracy": run.best_test_epoch,
    }
    for split in ("test", "val"):
        some = result[split] or {}
        facts |= {f"{split} {name}": some.get(name) for name in (*METRICS.values(), "loss", "images")}
    facts |= {"trained without head": run.trained_without_head, "trained with head": run.trained}
    facts |= {f"seconds {name}": value for name, value in cost["seconds"].items()}
    facts |= {name: value for name, value in cost.items() if isinstance(value, int | float)}
    facts |= {name: result.get(name) for name in ("epochs", "epoch_used", "train_loss", "precision")}
    facts |= {f"images {split}": count for split, count in run.data["images"].items()}
    facts |= {name: run.data.get(name) for name in ("train_split", "layout", "version")}
    facts["left out"] = len(run.data.get("left_out") or [])
    facts |= {f"pixels {name}": value for name, value in result["pixels"].items()}
    environment = result["environment"]
    facts |= {name: environment.get(name) for name in ("git", "python", "device", "platform", "threads")}
    facts |= environment["packages"]
    facts |= {"sweep": run.sweep.get("sweep", ""), "sweep row": run.sweep.get("row", "")}
    facts["tuned"] = simplejson.dumps(run.sweep["tuned"]) if run.sweep else ""
    return facts | {"config": simplejson.dumps(result["config"])}


def _csv(lines: Iterable[Iterable]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()
