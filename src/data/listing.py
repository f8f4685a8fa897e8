"""The table of tasks: what each is, and which of them are ready on this disk."""

import os
from pathlib import Path

from .sources.base import DataError
from .tasks import TASKS, Task


def tasks_table(root: str) -> str:
    """A Markdown table of TASKS; "ready" says how and where each was found.

    Args:
        root: where to look, DATA.DATAPATH; "": in the usual places.
    """
    roots = [Path(root).expanduser()] if root else usual_places()
    rows = [("DATA.NAME", "group", "classes", "train / val / test", "read as", "ready")]
    for task in TASKS.values():
        sizes = " / ".join(f"{task.sizes[name]:,}" if name in task.sizes else "-" for name in ("train", "val", "test"))
        kinds = ", ".join(dict.fromkeys(layout.kind for layout in task.layouts))
        ready = "; ".join(_ready(task, roots)) or "-"
        rows.append((task.name, task.group, str(task.num_classes or "-"), sizes if task.sizes else "-", kinds, ready))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    where = ", ".join(str(place) for place in roots)
    return "\n".join([lines[0], rule, *lines[1:], f"looked in {where} (DATA.DATAPATH names another folder)"])


def usual_places() -> list[Path]:
    """Where people keep data sets: ./data and the folders in it, and TensorFlow Datasets' own folder."""
    here = Path("data")
    inside = sorted(path for path in here.iterdir() if path.is_dir()) if here.is_dir() else []
    return [here, *inside, Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))]


def _ready(task: Task, roots: list[Path]) -> list[str]:
    found = []
    for layout in task.layouts:
        if layout.kind == "digits":
            return ["always"]
        for root in roots:
            try:
                here = layout.find(root) if root.is_dir() else None
                here = here if here is not None and layout.fits(here, task.num_classes) else None
            except DataError as error:
                here, found = None, [*found, f"{layout.kind}: {error}"]
            if here is not None:
                found.append(f"{layout.kind} in {here}")
                break
    return found
