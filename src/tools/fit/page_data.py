"""The parts of the page on the data: numbers, sizes, broken files, pictures that occur more than once."""

from .page_parts import bar, more, name, number, paragraph, percent, table, text
from .page_pictures import Pictures, gallery
from .words import counted

BROKEN, PAIRS = 20, 12  # that are shown


def data(result: dict, pictures: Pictures) -> str:
    """How many images of which classes and sizes, and what cannot be used."""
    facts = result.get("data")
    if not facts:
        return ""
    parts = [_numbers(facts), _classes(facts), _broken(facts.get("broken", []))]
    parts += [paragraph(note, "caption") for note in facts.get("notes", ())]
    return "\n".join(part for part in parts if part)


def _numbers(facts: dict) -> str:
    counts = ", ".join(f"{number(count)} {split}" for split, count in facts.get("images", {}).items())
    items = [f"{counts} images in {len(facts['classes'])} classes ({facts.get('source', '')})"]
    if sizes := facts.get("sizes"):
        sides = [f"{side} {s['smallest']} to {s['largest']}, median {s['median']}" for side, s in sizes.items()]
        items.append(f"{'; '.join(sides)} pixels")
    if (uneven := facts.get("imbalance")) is not None:
        items.append(f"the largest class has {uneven:.1f} times the images of the smallest")
    if "pictures" in facts:
        items.append(f"{number(facts['pictures'])} different pictures")
    return f"<ul>{''.join(f'<li>{text(one)}</li>' for one in items)}</ul>"


def _classes(facts: dict) -> str:
    """Images of each class, the fewest first."""
    rows = facts.get("per_class")
    if not rows:
        return ""
    splits = [key for key in facts["images"] if any(key in row for row in rows)]
    totals = {row["name"]: sum(row.get(split, 0) for split in splits) for row in rows}
    most = max(*totals.values(), 1)
    ranked = sorted(rows, key=lambda row: totals[row["name"]])
    cells = [
        [
            name(row["name"]),
            bar(totals[row["name"]] / most, number(totals[row["name"]])),
            *(number(row.get(split, 0)) for split in splits if len(splits) > 1),
        ]
        for row in ranked
    ]
    head = ["class", "images", *(splits if len(splits) > 1 else [])]
    content = table(head, cells, range(2, len(head)))
    return f"<details><summary>Images of each class</summary>\n{content}\n</details>"


def _broken(broken: list[dict]) -> str:
    if not broken:
        return ""
    rows = [[name(one["file"]), text(one["why"])] for one in broken[:BROKEN]]
    head = f"<details><summary>Left out: {counted(len(broken), 'file')}</summary>"
    return f"{head}\n{table(['file', 'why'], rows)}{more(BROKEN, len(broken))}</details>"


def similar(result: dict, pictures: Pictures) -> str:
    """Pairs of near-duplicates, those under two labels first."""
    found = result.get("data", {}).get("similar")
    if not found:
        return ""
    if not found["pairs"]:
        return "" if not found["compared"] else paragraph("None was found.")
    caption = f"{counted(found['pairs'], 'pair')}, {number(found['exact'])} of them the same file"
    caption += f"; {number(found['across_classes'])} have two labels"
    caption += f"; {number(found['across_splits'])} have one image among the test images"
    note = "" if found["compared"] else " Only files were compared: there are too many images for more."
    blocks = []
    for pair in found["listed"][:PAIRS]:
        sides = [
            pictures.figure(pair[side], [f"{name(label)}, {text(split)}"])
            for side, label, split in zip("ab", pair["labels"], pair["splits"], strict=True)
        ]
        how = "the same file" if pair["exact"] else f"{percent(pair['similarity'])} alike"
        blocks.append(f'<div class="pair">{"".join(sides)}<p class="caption">{how}</p></div>')
    return f"{paragraph(f'{caption}.{note}')}\n{gallery(blocks)}\n{more(min(PAIRS, len(blocks)), found['pairs'])}"
