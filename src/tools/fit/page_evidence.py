"""The parts of the page on what is right and wrong: classes, confusions, errors, doubtful labels, calibration, test."""

from .page_parts import bar, more, name, number, paragraph, percent, table, text
from .page_pictures import Pictures, gallery
from .page_plots import reliability
from .words import CHANCE

MOST_CLASSES = 30  # in a matrix
PAIRS = 20  # confusions that are listed where there are more classes
SHOWN = 24  # pictures


def classes(result: dict, pictures: Pictures) -> str:
    """Recall and precision of each class, the worst first."""
    return _classes(result.get("evidence", {}))


def _classes(evidence: dict) -> str:
    rows = evidence.get("per_class")
    if not rows:
        return ""
    ranked = sorted(rows, key=lambda row: 2 if row["recall"] is None else row["recall"])
    cells = [
        [
            name(row["name"]),
            number(row["images"]),
            bar(row["recall"], percent(row["recall"]), row["low"], row["high"]),
            f"{percent(row['low'])} to {percent(row['high'])}" if row["images"] else "–",
            bar(row["precision"], percent(row["precision"])),
        ]
        for row in ranked
    ]
    caption = "Recall: of a class's images, those that are recognised. Precision: of those called so, the right ones."
    head = ["class", "images", "recall", "95 % interval", "precision"]
    return paragraph(caption, "caption") + table(head, cells, (1, 3))


def confusions(result: dict, pictures: Pictures) -> str:
    return _confusions(result.get("evidence", {}))


def _confusions(evidence: dict) -> str:
    """The whole matrix, or the most frequent confusions of many classes."""
    counts, rows = evidence.get("confusion"), evidence.get("per_class")
    if not counts or not rows:
        return ""
    names = [row["name"] for row in rows]
    if len(names) <= MOST_CLASSES:
        return _matrix(names, counts)
    found = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if count and i != j]
    found.sort(key=lambda one: -one[0])
    cells = [
        [name(names[i]), name(names[j]), number(count), percent(count / sum(counts[i]))]
        for count, i, j in found[:PAIRS]
    ]
    if not cells:
        return paragraph("There are none.")
    return table(["class", "called", "images", "of the class"], cells, (2, 3)) + more(PAIRS, len(found))


def _matrix(names: list[str], counts: list[list[int]]) -> str:
    head = "".join(f'<th scope="col"><span>{name(one)}</span></th>' for one in names)
    lines = []
    for i, row in enumerate(counts):
        total = max(1, sum(row))
        cells = []
        for j, count in enumerate(row):
            kind = "right" if i == j else "wrong"
            shade = f' class="{kind}" style="--share:{100 * count / total:.0f}%"' if count else ""
            cells.append(f"<td{shade}>{count or ''}</td>")
        lines.append(f'<tr><th scope="row">{name(names[i])}</th>{"".join(cells)}</tr>')
    body = "\n".join(lines)
    caption = paragraph("Rows: the label. Columns: the answer.", "caption")
    return f"""{caption}<div class="frame"><table class="matrix"><thead><tr><td></td>{head}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def errors(result: dict, pictures: Pictures) -> str:
    return _listed(result.get("evidence", {}).get("errors"), pictures)


def doubtful(result: dict, pictures: Pictures) -> str:
    """Images whose label is likely wrong."""
    found = result.get("evidence", {}).get("doubtful_labels")
    if not found:
        return ""
    caption = "Heads that had not seen these images are sure of another class. Look at them: some labels may be wrong."
    return paragraph(caption, "caption") + _listed(found, pictures)


def _listed(found: list[dict] | None, pictures: Pictures) -> str:
    if not found:
        return ""
    figures = [
        pictures.figure(
            one["file"],
            [
                f"{name(one['predicted'])} {percent(one['probability'])}",
                f"label {name(one['label'])} {percent(one['of_label'])}",
            ],
        )
        for one in found[:SHOWN]
    ]
    return gallery(figures) + more(SHOWN, len(found))


def calibration(result: dict, pictures: Pictures) -> str:
    """Whether probabilities are as often right as they say."""
    found = result.get("evidence", {}).get("calibration")
    if not found or not found["bins"]:
        return ""
    caption = (
        f"Probabilities are off by {100 * found['error']:.1f} points on average (expected calibration error). Below "
        "the diagonal the model is surer than it is right."
    )
    return paragraph(caption, "caption") + reliability(found["bins"])


def test(result: dict, pictures: Pictures) -> str:
    """What the one look at the test images showed."""
    found = result.get("test")
    if not found:
        return ""
    parts = [test_sentence(found)]
    evidence = found.get("evidence", {})
    sections = {
        "Classes": _classes(evidence),
        "Confusions": _confusions(evidence),
        "The most certain errors": _listed(evidence.get("errors"), pictures),
    }
    parts += [
        f"<details><summary>{title}</summary>\n{content}\n</details>" for title, content in sections.items() if content
    ]
    return "\n".join(parts)


def test_sentence(found: dict) -> str:
    """The test images in a sentence; "" where there are none."""
    if not found:
        return ""
    leaked = found.get("leaked", 0)
    if found["top1"] is None:
        return paragraph(f"All {leaked} test images show pictures that are among the others: they say nothing.")
    inside = "inside the interval" if found["inside"] else f"outside the interval, {CHANCE}"
    how = inside if found["as_promised"] else "not as expected: these images are of another kind"
    caption = f"Of {number(found['images'])} test images, {percent(found['top1'])} are recognised, {how}."
    if leaked:
        caption += (
            f" Not counted: {number(leaked)} with pictures that are among the others; with these it would be "
            f"{percent(found['top1_with_leaked'])}."
        )
    return f"<p>{text(caption)}</p>"
