"""fit.html: what a fit found, as one page that opens offline, asks for nothing and runs no script.

Everything in it is from fit.json, and small pictures are read from the data. A part that fit.json does not have is left
out.
"""

from collections.abc import Callable
from pathlib import Path

from ...utils.io import write_atomic
from ..report.page import FOLDER as SHARED
from . import page_data, page_evidence, page_work
from .page_parts import number, paragraph, percent, text
from .page_pictures import Pictures
from .page_plots import interval

PAGE = "fit.html"
# In the order of the page: the id and name of a part, and what writes its content.
PARTS: list[tuple[str, str, Callable[[dict, Pictures], str]]] = [
    ("next", "What to do next", page_work.advice),
    ("choice", "The choice, and why", page_work.choice),
    ("tried", "What was tried, and how long", page_work.tried),
    ("data", "The data", page_data.data),
    ("classes", "Classes", page_evidence.classes),
    ("confusions", "Confusions", page_evidence.confusions),
    ("errors", "The most certain errors", page_evidence.errors),
    ("doubtful", "Labels that are likely wrong", page_evidence.doubtful),
    ("similar", "Pictures that occur more than once", page_data.similar),
    ("calibration", "Calibration", page_evidence.calibration),
    ("test", "The test images", page_evidence.test),
    ("made", "How this was made", page_work.made),
]


def write_page(result: dict, folder: Path) -> Path:
    """Write fit.html beside fit.json.

    Raises:
        WriteError: the disk is full, gone or not writable.
    """
    path = folder / PAGE
    content = page(result, Path(result.get("data", {}).get("root", folder))).encode()
    write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return path


def page(result: dict, root: Path) -> str:
    """The page's text.

    Args:
        result: the content of fit.json.
        root: the folder that the names of images are relative to; those that cannot be read there have no picture.
    """
    pictures = Pictures(root)
    parts = [(name, title, write(result, pictures)) for name, title, write in PARTS]
    parts = [(name, title, content) for name, title, content in parts if content]
    title = f"A fit of {root.resolve().name or root}"
    contents = "\n".join(f'<a href="#{name}">{title}</a>' for name, title, _ in parts)
    sections = "\n".join(
        f'<section id="{name}">\n<h2>{title}</h2>\n{content}\n</section>' for name, title, content in parts
    )
    styles = "".join((folder / "page.css").read_text(encoding="utf-8") for folder in (SHARED, Path(__file__).parent))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{text(title)}</title>
<style>
{styles}
</style>
</head>
<body>
<header>
<h1>{text(title)}</h1>
{_promise(result)}
<nav aria-label="Contents">{contents}</nav>
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def _promise(result: dict) -> str:
    """The accuracy to expect, and what the test images showed of it."""
    promise, test = result.get("promise"), result.get("test") or {}
    if not promise:
        return ""
    low, high = percent(promise["low"]), percent(promise["high"])
    basis = f"of images of the same kind are recognised, by what {number(promise['images'])} images showed"
    rests_on = f", {promise['rests_on']}" if promise.get("rests_on") else ""
    level = f"{100 * promise.get('level', 0.95):g} %"
    rows = [("expected", promise["expected"], promise["low"], promise["high"])]
    if test.get("top1") is not None:
        rows.append(("test images", test["top1"], test["low"], test["high"]))
    return f"""<div class="promise">
<p class="figure">{percent(promise["expected"])}</p>
<div><p>{text(basis + rests_on)}. {level} interval: {low} to {high}.</p>
{page_evidence.test_sentence(test)}
{interval(rows)}</div>
</div>
{"".join(paragraph(one["text"], "finding") for one in result.get("findings", ()))}"""
