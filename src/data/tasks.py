"""The table of tasks: what ``DATA.NAME`` may say. To add one: a row, and a source if its files are of a new kind."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .sources.base import Source
from .sources.digits import Digits
from .sources.fgvc import FGVC
from .sources.folder import Folder
from .sources.vtab import VTABFolder


@dataclass(frozen=True)
class Task:
    """One row.

    Attributes:
        num_classes: 0 where only the data can tell.
        source: opens the data: (DATA.DATAPATH, the task's folder there, DATA.VAL_FRACTION) -> Source.
        train_split: what trains unless DATA.TRAIN_SPLIT says otherwise: "trainval" or "train".
        augment: what DATA.AUGMENT "" means.
        aliases: its names elsewhere.
    """

    name: str
    num_classes: int
    source: Callable[[Path, str, float], Source]
    train_split: str
    augment: str = "none"
    group: str = ""
    folder: str = ""
    aliases: tuple[str, ...] = ()


def _vtab(group: str, folder: str, num_classes: int, short: str, vpt: str) -> Task:
    """A VTAB-1k task (Zhai et al., 2019, arXiv:1910.04867): FreqFiT's name in run.sh, VPT's behind "vtab-"."""
    aliases = (folder, f"vtab-{vpt}", f"vtab-{short}", f"processed_vtab-{folder}")
    return Task(short, num_classes, VTABFolder, "trainval", "none", group, folder, aliases)


def _fgvc(name: str, num_classes: int, images: str, *aliases: str) -> Task:
    """A fine-grained task with VPT's JSON splits; ``images`` is the folder its image names start from."""
    return Task(name, num_classes, FGVC, "train", "crop_flip", "FGVC", images, aliases)


_ROWS = [
    Task("digits", 10, Digits, "trainval"),
    Task("folder", 0, Folder, "train"),
    _vtab("Natural", "caltech101", 102, "caltech101", "caltech101"),
    _vtab("Natural", "cifar", 100, "cifar100", "cifar(num_classes=100)"),
    _vtab("Natural", "dtd", 47, "dtd", "dtd"),
    _vtab("Natural", "oxford_flowers102", 102, "flowers", "oxford_flowers102"),
    _vtab("Natural", "oxford_iiit_pet", 37, "pets", "oxford_iiit_pet"),
    _vtab("Natural", "svhn", 10, "svhn", "svhn"),
    _vtab("Natural", "sun397", 397, "sun397", "sun397"),
    _vtab("Specialized", "patch_camelyon", 2, "camelyon", "patch_camelyon"),
    _vtab("Specialized", "eurosat", 10, "eurosat", "eurosat"),
    _vtab("Specialized", "resisc45", 45, "resisc45", "resisc45"),
    _vtab("Specialized", "diabetic_retinopathy", 5, "retino", 'diabetic_retinopathy(config="btgraham-300")'),
    _vtab("Structured", "clevr_count", 8, "clevr-count", 'clevr(task="count_all")'),
    _vtab("Structured", "clevr_dist", 6, "clevr-distance", 'clevr(task="closest_object_distance")'),
    _vtab("Structured", "dmlab", 6, "dmlab", "dmlab"),
    _vtab("Structured", "kitti", 4, "kitti", 'kitti(task="closest_vehicle_distance")'),
    _vtab(
        "Structured",
        "dsprites_loc",
        16,
        "dsprites-location",
        'dsprites(predicted_attribute="label_x_position",num_classes=16)',
    ),
    _vtab(
        "Structured",
        "dsprites_ori",
        16,
        "dsprites-orientation",
        'dsprites(predicted_attribute="label_orientation",num_classes=16)',
    ),
    _vtab("Structured", "smallnorb_azi", 18, "smallnorb-azimuth", 'smallnorb(predicted_attribute="label_azimuth")'),
    _vtab("Structured", "smallnorb_ele", 9, "smallnorb-elevation", 'smallnorb(predicted_attribute="label_elevation")'),
    _fgvc("CUB", 200, "images", "cub"),
    _fgvc("nabirds", 555, "images"),
    _fgvc("OxfordFlowers", 102, "", "oxford_flowers", "oxfordflower"),
    _fgvc("StanfordDogs", 120, "Images", "stanford_dogs", "stanforddog", "dogs"),
    _fgvc("StanfordCars", 196, "", "stanford_cars", "stanfordcar", "cars"),
]

TASKS: dict[str, Task] = {row.name: row for row in _ROWS}
_ALIASES = {alias: row for row in _ROWS for alias in row.aliases}


def find_task(name: str) -> Task:
    """The row of a name or alias.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name in TASKS:
        return TASKS[name]
    if name in _ALIASES:
        return _ALIASES[name]
    said = f"DATA.NAME is {name!r}, which is no known task" if name else "DATA.NAME is not set"
    raise ValueError(f"{said}; known: {', '.join(TASKS)}; your own images: DATA.NAME folder")
