"""The table of tasks: the values of ``DATA.NAME``. To add one: a row, and a layout if its files are of a new kind."""

import difflib
from dataclasses import dataclass, field

from .sources.base import Layout
from .sources.digits import Digits
from .sources.fgvc import FGVC
from .sources.folder import ClassFolders, Folder, Unsplit
from .sources.labels import CLEVR_DISTANCE
from .sources.lists import FewShotLists, ImageNetVariant, OwnLists
from .sources.shards import Shards
from .sources.tfds import TFDS, VTAB_TFDS, fixed
from .sources.torchvision_sets import TorchvisionSet
from .sources.vtab import VTABFolder


@dataclass(frozen=True)
class Task:
    """One row.

    Attributes:
        num_classes: 0 if only the data determine it.
        layouts: how it may be stored on disk, the best first.
        protocol: how its images are processed, a name in pixels.PROTOCOLS.
        train_split: the default of DATA.TRAIN_SPLIT: "trainval" or "train".
        sizes: published number of images per split.
        metric: what papers report.
        aliases: its names in other code.
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


# Prefixes that other repositories put before VTAB-1k names to say where the images are read from -> the layout.
PREFIXES = {"vtab-": "", "tfds_vtab-": "tfds", "processed_vtab-": "noah", "process_vtab-": "noah"}


def _vtab(name: str, group: str, classes: int, folder: str, vpt: str, test: int, *others: str) -> Task:
    """A VTAB-1k task (Zhai et al., 2019, arXiv:1910.04867): FreqFiT's name in run.sh, NOAH's folder, VPT's registry."""
    names = {folder, vpt, name, *others}
    aliases = names | {prefix + some for prefix in PREFIXES for some in names}
    sizes = {"train": 800, "val": 200, "test": test}
    parts = fixed(train="train800", val="val200", test="test")
    converted = TFDS(f"vtab_{folder}", "1.*.*", parts, made_by="convert ... --to tfds")
    layouts = (VTAB_TFDS[folder], VTABFolder(folder), converted)
    return Task(name, classes, layouts, "vtab", "trainval", group, sizes, aliases=tuple(sorted(aliases - {name})))


def _fgvc(name: str, classes: int, images: str, train: int, val: int, test: int, *aliases: str) -> Task:
    """A fine-grained task with VPT's JSON splits; ``images`` is the folder that image names are relative to."""
    sizes = {"train": train, "val": val, "test": test}
    return Task(name, classes, (FGVC(images, (name, *aliases)),), "fgvc", "train", "FGVC", sizes, aliases=aliases)


def _fewshot(short: str, classes: int, val: int, test: int, *folders: str, images: str = "images") -> Task:
    """A few-shot task with the lists of NOAH (Zhang et al., 2022, arXiv:2206.04673): k = 1, 2, 4, 8 or 16."""
    layout = FewShotLists(folders, (images,))
    sizes = {"val": val, "test": test}
    aliases = tuple(f"{folder}-fewshot" for folder in folders)
    return Task(f"fewshot-{short}", classes, (layout,), "fewshot", "train", "few-shot", sizes, aliases=aliases)


# The unifying study's sizes: number of training and validation images together -> number for validation (Mai et al.,
# 2025, arXiv:2409.16434; where it does not say, 20 % below 1,000 and 10 % above).
MANY_SHOT = {
    "cifar": {"500": 100, "1k": 200, "5k": 500, "10k": 1000, "full": 1000},
    "resisc45": {"225": 45, "450": 90, "900": 180, "2250": 225, "4500": 450, "9000": 900, "full": 2520},
}
_THOUSAND = {"1k": 1000, "5k": 5000, "10k": 10000, "full": 0}


def _cifar(classes: int) -> list[Task]:
    rows = []
    for size, val in MANY_SHOT["cifar"].items():
        count = _THOUSAND[size] if size in _THOUSAND else int(size)
        layouts = (
            TorchvisionSet(f"CIFAR{classes}", count, val),
            TFDS(f"cifar{classes}", "3.*.*", fixed(train="train", test="test"), subset=count, val_size=val),
        )
        sizes = {"train": (count or 50_000) - val, "val": val, "test": 10_000}
        name = f"cifar{classes}-{size}"
        rows.append(Task(name, classes, layouts, "manyshot", "trainval", "many-shot", sizes))
    return rows


def _resisc() -> list[Task]:
    rows = []
    for size, val in MANY_SHOT["resisc45"].items():
        count = 0 if size == "full" else int(size)
        halves = fixed(train="train[:80%]", test="train[80%:]")
        layouts = (
            Unsplit("NWPU-RESISC45", 0.2, count, val),
            TFDS("resisc45", "3.*.*", halves, subset=count, val_size=val),
        )
        sizes = {"train": (count or 25_200) - val, "val": val, "test": 6300}
        rows.append(Task(f"resisc45-{size}", 45, layouts, "aerial", "trainval", "many-shot", sizes))
    return rows


def _imagenet(name: str, shots: int, val_size: float, *aliases: str) -> Task:
    """ImageNet-1k, whole or a few images per class; ImageNet's validation images are the test set."""
    folder = Folder(
        ("imagenet", "imagenet-1k", "ImageNet", "ILSVRC2012", ""), val="", test="val", val_size=val_size, shots=shots
    )
    layouts: tuple[Layout, ...] = (folder,)
    if shots == 16:
        layouts = (FewShotLists(("imagenet",), ("train",), test="val"), folder)
    per_class = 1000 * shots or 1_281_167
    val = round(per_class * val_size)
    sizes = {"train": per_class - val, "test": 50_000} | ({"val": val} if val else {})
    return Task(name, 1000, layouts, "fewshot", "trainval", "ImageNet", sizes, aliases=aliases)


def _variant(name: str, images: int, *folders: str, numbered: bool = False) -> Task:
    layout = ImageNetVariant((name, *folders), numbered)
    return Task(name, 1000, (layout,), "fewshot", group="ImageNet", sizes={"test": images}, aliases=folders)


def _whole(name: str, classes: int, kind: str, train: int, val: int, test: int, *aliases: str) -> Task:
    """A whole torchvision data set, as the Block Expansion code trains on it."""
    sizes = {"train": train, "test": test} | ({"val": val} if val else {})
    val_size = None if val else 0.1
    layouts = (TorchvisionSet(kind, val_size=val_size),)
    if val_size:
        sizes |= {"train": train - round(train * val_size), "val": round(train * val_size)}
    return Task(name, classes, layouts, "full", "trainval", "whole", sizes, aliases=aliases)


_ROWS = [
    Task("digits", 10, (Digits(),), sizes={"train": 800, "val": 200, "test": 797}),
    Task("folder", 0, (Folder(), Shards(), ClassFolders()), train_split="train"),
    Task("lists", 0, (OwnLists(),), train_split="train"),
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
    _fewshot("food101", 101, 20200, 30300, "food101", "food-101"),
    _fewshot("aircraft", 100, 3333, 3333, "fgvc-aircraft", "fgvc_aircraft"),
    _fewshot("pets", 37, 736, 3669, "oxford-pets", "oxford_pets"),
    _fewshot("flowers", 102, 1633, 2463, "oxford-flowers102", "oxford_flowers"),
    _fewshot("cars", 196, 1635, 8041, "standford-cars", "stanford-cars", "stanford_cars", images=""),  # NOAH's spelling
    *_cifar(10),
    *_cifar(100),
    *_resisc(),
    Task(
        "clevr-distance-full",
        6,
        (TFDS("clevr", "3.*.*", fixed(train="train", test="validation"), CLEVR_DISTANCE, val_size=0.1),),
        "clevr",
        "trainval",
        "many-shot",
        {"train": 63_000, "val": 7000, "test": 15_000},
    ),
    _imagenet("imagenet", 0, 0.02, "imagenet-1k", "imagenet1k", "ILSVRC2012"),
    _imagenet("imagenet-100shot", 100, 0.1, "imagenet-fs", "fs-imagenet"),
    _imagenet("imagenet-16shot", 16, 0.0),
    _variant("imagenet-v2", 10_000, "imagenetv2", "imagenetv2-matched-frequency-format-val", numbered=True),
    _variant("imagenet-r", 30_000, "imagenet-rendition"),
    _variant("imagenet-a", 7500, "imagenet-adversarial"),
    _variant("imagenet-sketch", 50_889, "sketch"),
    _whole("food101", 101, "Food101", 75_750, 0, 25_250),
    _whole("aircraft", 100, "FGVCAircraft", 3334, 3333, 3333, "fgvc-aircraft"),
    _whole("stl10", 10, "STL10", 5000, 0, 8000),
    _whole("dtd-full", 47, "DTD", 1880, 1880, 1880),
    _whole("pets-full", 37, "OxfordIIITPet", 3680, 0, 3669),
    _whole("flowers-full", 102, "Flowers102", 1020, 1020, 6149),
    _whole("cars-full", 196, "StanfordCars", 8144, 0, 8041),
]

TASKS: dict[str, Task] = {row.name: row for row in _ROWS}
# Names that stand for several tasks -> their groups.
GROUPS = {
    "vtab-1k": ("Natural", "Specialized", "Structured"),
    "natural": ("Natural",),
    "specialized": ("Specialized",),
    "structured": ("Structured",),
    "fgvc": ("FGVC",),
    "few-shot": ("few-shot",),
    "many-shot": ("many-shot",),
}
_KNOWN = {alias.lower().replace("_", "-"): row for row in _ROWS for alias in (*row.aliases, row.name)}


def find_task(name: str) -> Task:
    """The row of a name or alias; case, "-" and "_" do not matter.

    Raises:
        ValueError: an unknown name; the message suggests the nearest ones.
    """
    plain = name.lower().replace("_", "-").replace("'", '"').replace(" ", "")
    if plain in _KNOWN:
        return _KNOWN[plain]
    if not name:
        raise ValueError(f"DATA.NAME is not set; known: {', '.join(TASKS)}; your own images: DATA.NAME folder")
    near = difflib.get_close_matches(plain, _KNOWN, 3)
    meant = f" (did you mean {' or '.join(dict.fromkeys(_KNOWN[some].name for some in near))}?)" if near else ""
    raise ValueError(
        f"DATA.NAME is {name!r}, which is unknown{meant}; known: {', '.join(TASKS)}; your own images: DATA.NAME folder"
    )


def implied_layout(name: str) -> str:
    """The layout implied by a name from another repository, "" if none: processed_vtab-cifar is NOAH's folder."""
    return next((layout for prefix, layout in PREFIXES.items() if name.lower().startswith(prefix)), "")
