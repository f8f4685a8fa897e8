"""Pieces of HTML: text that is never markup, numbers, tables."""

import re
from collections.abc import Sequence
from html import escape

# Control characters, among them those that turn the direction of all text that follows.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LONGEST = 90  # characters of a name


def text(value: object) -> str:
    """Text of a user for the page: escaped, in any script, without what is no character."""
    plain = CONTROL.sub("�", str(value)).encode("utf-8", "replace").decode()
    return escape(plain)


def name(value: object) -> str:
    """A name, whose direction of writing does not reach beyond it; of a long one both ends, and all in its title."""
    whole = str(value)
    if len(whole) <= LONGEST:
        return f"<bdi>{text(whole)}</bdi>"
    return f'<bdi title="{text(whole)}">{text(f"{whole[: LONGEST // 2]} … {whole[-LONGEST // 3 :]}")}</bdi>'


def paragraph(content: object, kind: str = "") -> str:
    return f'<p class="{kind}">{text(content)}</p>' if kind else f"<p>{text(content)}</p>"


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already.

    Args:
        head: text.
        numbers: columns that stand to the right.
    """
    kinds = [' class="number"' if i in numbers else "" for i in range(len(head))]
    top = "".join(f'<th scope="col"{kind}>{text(one)}</th>' for one, kind in zip(head, kinds, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row"{kinds[0]}>{first}</th>{cells}</tr>')
    body = "\n".join(lines)
    return f'<div class="frame"><table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def bar(fraction: float | None, label: str, low: float | None = None, high: float | None = None) -> str:
    """A number over a bar of its length, with a whisker from ``low`` to ``high``."""
    if fraction is None:
        return text(label)
    whisker = ""
    if low is not None and high is not None:
        whisker = f'<i class="whisker" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
    return f'<span class="bar"><i style="width:{100 * fraction:.1f}%"></i>{whisker}<span>{text(label)}</span></span>'


def more(shown: int, count: int, where: str = "fit.json") -> str:
    """A note that not all is shown."""
    return paragraph(f"{shown} of {count:,} are shown; the others are in {where}.", "caption") if count > shown else ""
