"""The table of tasks: what ``DATA.NAME`` may say. To add one: a row, and a layout if its files are of a new kind."""

import difflib
from dataclasses import dataclass, field

from .sources.base import Layout
from .sources.digits import Digits
from .sources.fgvc import FGVC
from .sources.folder import Folder
from .sources.tfds import VTAB_TFDS
from .sources.vtab import VTABFolder


@dataclass(frozen=True)
class Task:
    """One row.

    Attributes:
        num_classes: 0 where only the data can tell.
        layouts: how it may lie on disk, the best first.
        protocol: what is done with its images, a name in pixels.py's PROTOCOLS.
        train_split: what trains unless DATA.TRAIN_SPLIT says otherwise: "trainval" or "train".
        sizes: published numbers of images, split -> count.
        metric: what papers report of it.
        aliases: its names elsewhere.
    """

    name: str
    num_classes: int
    layouts: tuple[Layout, ...]
    protocol: str = "vtab"
    train_split: str = "trainval"
    group: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    metric: str = "top-1"
    aliases: tuple[str, ...] = ()


# Names of VTAB-1k's tasks in front of which peers put where they read them from -> the layout that they mean.
PREFIXES = {"vtab-": "", "tfds_vtab-": "tfds", "processed_vtab-": "noah", "process_vtab-": "noah"}


def _vtab(name: str, group: str, classes: int, folder: str, vpt: str, test: int, *others: str) -> Task:
    """A VTAB-1k task (Zhai et al., 2019, arXiv:1910.04867): FreqFiT's name in run.sh, NOAH's folder, VPT's registry."""
    names = {folder, vpt, name, *others}
    aliases = names | {prefix + some for prefix in PREFIXES for some in names}
    sizes = {"train": 800, "val": 200, "test": test}
    layouts = (VTAB_TFDS[folder], VTABFolder(folder))
    return Task(name, classes, layouts, "vtab", "trainval", group, sizes, aliases=tuple(sorted(aliases - {name})))


def _fgvc(name: str, classes: int, images: str, train: int, val: int, test: int, *aliases: str) -> Task:
    """A fine-grained task with VPT's JSON splits; ``images`` is the folder its image names start from."""
    sizes = {"train": train, "val": val, "test": test}
    return Task(name, classes, (FGVC(images),), "fgvc", "train", "FGVC", sizes, aliases=aliases)


_ROWS = [
    Task("digits", 10, (Digits(),), sizes={"train": 800, "val": 200, "test": 797}),
    Task("folder", 0, (Folder(),), train_split="train"),
    _vtab("caltech101", "Natural", 102, "caltech101", "caltech101", 6084),
    _vtab("cifar100", "Natural", 100, "cifar", "cifar(num_classes=100)", 10000),
    _vtab("dtd", "Natural", 47, "dtd", "dtd", 1880),
    _vtab("flowers", "Natural", 102, "oxford_flowers102", "oxford_flowers102", 6149, "flowers102"),
    _vtab("pets", "Natural", 37, "oxford_iiit_pet", "oxford_iiit_pet", 3669, "oxford_pet"),
    _vtab("svhn", "Natural", 10, "svhn", "svhn", 26032),
    _vtab("sun397", "Natural", 397, "sun397", "sun397", 21750),
    _vtab("camelyon", "Specialized", 2, "patch_camelyon", "patch_camelyon", 32768, "pcam"),
    _vtab("eurosat", "Specialized", 10, "eurosat", "eurosat", 5400),
    _vtab("resisc45", "Specialized", 45, "resisc45", "resisc45", 6300, "resisc"),
    _vtab(
        "retino",
        "Specialized",
        5,
        "diabetic_retinopathy",
        'diabetic_retinopathy(config="btgraham-300")',
        42670,
        "retinopathy",
    ),
    _vtab("clevr-count", "Structured", 8, "clevr_count", 'clevr(task="count_all")', 15000),
    _vtab("clevr-distance", "Structured", 6, "clevr_dist", 'clevr(task="closest_object_distance")', 15000),
    _vtab("dmlab", "Structured", 6, "dmlab", "dmlab", 22735),
    _vtab("kitti", "Structured", 4, "kitti", 'kitti(task="closest_vehicle_distance")', 711),
    _vtab(
        "dsprites-location",
        "Structured",
        16,
        "dsprites_loc",
        'dsprites(predicted_attribute="label_x_position",num_classes=16)',
        73728,
    ),
    _vtab(
        "dsprites-orientation",
        "Structured",
        16,
        "dsprites_ori",
        'dsprites(predicted_attribute="label_orientation",num_classes=16)',
        73728,
    ),
    _vtab(
        "smallnorb-azimuth",
        "Structured",
        18,
        "smallnorb_azi",
        'smallnorb(predicted_attribute="label_azimuth")',
        12150,
    ),
    _vtab(
        "smallnorb-elevation",
        "Structured",
        9,
        "smallnorb_ele",
        'smallnorb(predicted_attribute="label_elevation")',
        12150,
    ),
    _fgvc("CUB", 200, "images", 5394, 600, 5794, "cub200", "cub_200_2011"),
    _fgvc("nabirds", 555, "images", 21536, 2393, 24633),
    _fgvc("OxfordFlowers", 102, "", 1020, 1020, 6149, "oxford_flowers", "oxfordflower"),
    _fgvc("StanfordDogs", 120, "Images", 10800, 1200, 8580, "stanford_dogs", "stanforddog", "dogs"),
    _fgvc("StanfordCars", 196, "", 7329, 815, 8041, "stanford_cars", "stanfordcar", "cars"),
]

TASKS: dict[str, Task] = {row.name: row for row in _ROWS}
_KNOWN = {alias.lower().replace("_", "-"): row for row in _ROWS for alias in (*row.aliases, row.name)}


def find_task(name: str) -> Task:
    """The row of a name or alias; capitals, "-" and "_" make no difference.

    Raises:
        ValueError: an unknown name; the message has the nearest known ones.
    """
    plain = name.lower().replace("_", "-").replace("'", '"').replace(" ", "")
    if plain in _KNOWN:
        return _KNOWN[plain]
    if not name:
        raise ValueError(f"DATA.NAME is not set; known: {', '.join(TASKS)}; your own images: DATA.NAME folder")
    near = difflib.get_close_matches(plain, _KNOWN, 3)
    meant = f" (did you mean {' or '.join(dict.fromkeys(_KNOWN[some].name for some in near))}?)" if near else ""
    raise ValueError(
        f"DATA.NAME is {name!r}, which is no known task{meant}; known: {', '.join(TASKS)}; your own images: DATA.NAME "
        "folder"
    )


def implied_layout(name: str) -> str:
    """The layout that a peer's name stands for, "" for none: processed_vtab-cifar is NOAH's folder."""
    return next((layout for prefix, layout in PREFIXES.items() if name.lower().startswith(prefix)), "")
