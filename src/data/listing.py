"""The table of tasks: what each task is, and which are ready on this disk."""

import os
from pathlib import Path

from ..utils.table import Table
from .sources.base import DataError
from .tasks import TASKS, Task


def tasks_table(root: str) -> Table:
    """TASKS; the column "ready" shows how and where each was found.

    Args:
        root: where to look (DATA.DATAPATH); "": in the usual places.
    """
    roots = places(root)
    columns = ("DATA.NAME", "group", "classes", "train / val / test", "read as", "ready")
    rows = []
    for task in TASKS.values():
        sizes = " / ".join(f"{task.sizes[name]:,}" if name in task.sizes else "-" for name in ("train", "val", "test"))
        kinds = ", ".join(dict.fromkeys(layout.kind for layout in task.layouts))
        ready = "; ".join(where_ready(task, roots)) or "-"
        rows.append((task.name, task.group, str(task.num_classes or "-"), sizes if task.sizes else "-", kinds, ready))
    note = f"looked in {', '.join(map(str, roots))} (DATA.DATAPATH names another folder)"
    return Table(columns, rows, "llllll", below={"read as": "read as: ", "ready": "ready: "}, note=note)


def places(root: str) -> list[Path]:
    """Where to look for data sets: DATA.DATAPATH ``root``, or, where it is "", the usual places."""
    return [Path(root).expanduser()] if root else usual_places()


def usual_places() -> list[Path]:
    """Where data sets usually are: ./data and the folders in it, and TensorFlow Datasets' folder."""
    data = Path("data")
    inside = sorted(path for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    return [data, *inside, Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))]


def where_ready(task: Task, roots: list[Path]) -> list[str]:
    """How and where ``task`` can be read, or why what looks like it cannot: "noah in data/dtd"."""
    places = []
    for layout in task.layouts:
        if layout.kind == "digits":
            return ["always"]
        for root in roots:
            try:
                folder = layout.find(root) if root.is_dir() else None
                folder = folder if folder is not None and layout.fits(folder, task.num_classes) else None
            except DataError as error:
                folder, places = None, [*places, f"{layout.kind}: {error}"]
            if folder is not None:
                places.append(f"{layout.kind} in {folder}")
                break
    return places
