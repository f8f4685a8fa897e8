"""Directories prepared by TensorFlow Datasets, in tfrecord or ArrayRecord format, read without TensorFlow.

``DATAPATH/<builder>[/<config>]/<version>/``, as ``tfds.builder(...).download_and_prepare()`` writes it. Images are
byte for byte those of the original data set, and VTAB-1k's splits are positions in the order in which TFDS wrote them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...utils.progress import tqdm
from . import labels
from .base import DataError, Layout, RawImage, Source, Split, Wanted, printable, shown
from .labels import Rule
from .subsets import DRAWN, draw

Counts = dict[str, int]  # number of images per TFDS split
KEYS = ("file_name", "image/file_name", "filename", "name", "id")  # features that hold an example's name
VERSION = re.compile(r"\d+\.\d+\.\d+$")


def train_part(percent: int, test: str = "test") -> Callable[[Counts], dict[str, str]]:
    """VTAB's split of a set without validation images: 200 of them, starting at ``percent`` % of train."""

    def splits(counts: Counts) -> dict[str, str]:
        start = counts["train"] * percent // 100
        return {"train": "train[:800]", "val": f"train[{start}:{start + 200}]", "test": test}

    return splits


def train_only(percent: int, val_percent: int) -> Callable[[Counts], dict[str, str]]:
    """VTAB's split of a set that has only train: the test set is what follows the shares of train and val."""

    def splits(counts: Counts) -> dict[str, str]:
        total = counts["train"]
        start = total * percent // 100 + total * val_percent // 100
        return train_part(percent)(counts) | {"test": f"train[{start}:]"}

    return splits


def fixed(**expressions: str) -> Callable[[Counts], dict[str, str]]:
    """The same expressions, independent of the counts."""
    return lambda counts: expressions


OWN_VALIDATION = fixed(train="train[:800]", val="validation[:200]", test="test")


@dataclass(frozen=True)
class TFDS(Layout):
    """A task's directory.

    Attributes:
        builder: TFDS's name, with its config.
        pin: the versions that VPT and FreqFiT require.
        splits: counts -> TFDS expressions of train, val and test.
        image: a function of the encoded image.
        made_by: the arguments of src.tools.prepare that make it.
        get: how to get the data, if preparing it is not enough.
        notes: version pattern -> what a reader of the result must know.
        subset, val_size: see ``subsets.draw``; 0 and None leave the splits as they are.
    """

    builder: str
    pin: str
    splits: Callable[[Counts], dict[str, str]]
    label: Rule = labels.LABEL
    image: Callable[[bytes], RawImage] = bytes
    made_by: str = "<task>"
    get: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    subset: int = 0
    val_size: int | float | None = None
    kind: ClassVar[str] = "tfds"
    takes: ClassVar[tuple[str, ...]] = (*DRAWN, "VERSION")

    def find(self, root: Path) -> Path | None:
        name, _, config = self.builder.partition("/")
        if VERSION.match(root.name) and (root / "dataset_info.json").is_file():
            above = root.parent.parent.name if config else root.parent.name
            return root if above == name else None
        return next((place for place in self._places(root) if _versions(place)), None)

    def hint(self, root: Path) -> str:
        left = [f"{place}/{name}" for place in self._places(root) for name in _unfinished(place)]
        return f"{', '.join(left)} is unfinished because preparing it was interrupted: prepare it again" if left else ""

    def _places(self, root: Path) -> list[Path]:
        """The folders that may hold versions."""
        name, _, config = self.builder.partition("/")
        places = [root / self.builder]
        if root.name == name:
            places.append(root / config if config else root)
        elif config and root.name == config and root.parent.name == name:
            places.append(root)
        return places

    def open(self, place: Path, wanted: Wanted) -> Source:
        import tensorflow_datasets as tfds  # imported here: slow, and needed only for such directories

        from .records import open_records

        folder = self.version_folder(place, wanted.version)
        info = read_info(tfds, folder)
        counts = {name: split.num_examples for name, split in info.splits.items()}
        field = self.label.fields[0].split("/")[0]
        if not {"train", "train800"} & counts.keys() or not {"image", field} <= info.features.keys():
            raise DataError(
                f"{folder.absolute()} is not {self.builder}: it has the splits {shown(', '.join(counts))} and the "
                f"features {shown(', '.join(sorted(info.features)))}, but a train split, image and {field} are needed"
            )
        expressions = self.splits(counts)
        names = list(self.label.names) or list(getattr(info.features[field], "names", None) or ())
        if not names:
            raise DataError(f"{folder.absolute()} does not name the classes of its feature {field}")
        opened = {name: open_records(info, expression) for name, expression in expressions.items()}
        splits = {
            name: self._split(records, f"{info.full_name} {expressions[name]}", len(names))
            for name, records in opened.items()
        }
        if self.val_size is not None or wanted.shots or wanted.lists:
            order = _original_order(splits["train"].keys)
            splits = draw(splits, wanted, names, folder, self.subset, self.val_size, order)
        pinned = "" if self._fits(folder.name) else f"; VPT and FreqFiT require {self.pin}"
        notes = [text for pattern, text in self.notes if fnmatch(folder.name, pattern)]
        return Source(names, splits, f"TFDS {info.full_name}, {opened['train'].file_format}{pinned}", notes=notes)

    def expects(self) -> str:
        path = f"{self.builder}/<version>/, made by TensorFlow Datasets (vitune prepare {self.made_by})"
        return path + (f". {self.get}" if self.get else "")

    def _fits(self, version: str) -> bool:
        return fnmatch(version, self.pin)

    def version_folder(self, place: Path, wanted: str = "") -> Path:
        """The version's folder: the one required, else the newest that other repositories use, else the newest.

        Raises:
            DataError: the required version is not there.
        """
        if VERSION.match(place.name):
            return place
        versions = _versions(place)
        if wanted and wanted not in [folder.name for folder in versions]:
            names = ", ".join(folder.name for folder in versions)
            raise DataError(f"DATA.VERSION {wanted} of {self.builder} is not in {place.absolute()}; available: {names}")
        fitting = [folder for folder in versions if (folder.name == wanted if wanted else self._fits(folder.name))]
        return (fitting or versions)[-1]

    def _split(self, records, description: str, num_classes: int) -> Split:
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.core.example_parser import tf_example_pb2

        def features(i: int):
            return tf_example_pb2.Example.FromString(records[i]).features.feature

        numbers, keys = np.empty(len(records), int), []
        for i in tqdm(range(len(records)), f"labels of {description}", unit="img", delay=1, leave=False):
            try:
                example = features(i)
                numbers[i] = self.label.label(*(_values(example[name]) for name in self.label.fields))
                name = next((_text(example[key]) for key in KEYS if key in example), str(i))
            except (IndexError, ValueError, TypeError, OverflowError, DecodeError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(
                    f"{description}, record {i}: no label in {', '.join(self.label.fields)} ({error})"
                ) from error
            keys.append(f"{description.split('/')[0]} {description.split(' ')[-1].split('[')[0]}/{name}")
            if not 0 <= numbers[i] < num_classes:
                raise DataError(f"{description}, {keys[-1]}: label {numbers[i]} is not in 0..{num_classes - 1}")
        image = self.image

        def read(i: int) -> RawImage:
            values = features(i)["image"].bytes_list.value
            if not values:
                raise DataError(f"{description}, {keys[i]}: no image bytes")
            return image(values[0])

        return Split(read, numbers, keys, records.stamp)


def _original_order(keys: list[str]) -> np.ndarray | None:
    """The original data set's order of the images, if their names tell.

    TFDS shuffles examples; a CIFAR image is named by its original number, such as train_00012.
    """
    numbers = [re.search(r"_(\d{1,9})$", key) for key in keys]
    if None in numbers:
        return None
    counted = np.array([int(number[1]) for number in numbers])
    order = np.argsort(counted, kind="stable")
    return order if np.array_equal(counted[order], np.arange(len(keys))) else None


def _text(feature) -> str:
    """The first value of a feature that holds a name."""
    value = _values(feature)[0]
    return printable(value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value))


def _values(feature) -> list:
    return getattr(feature, feature.WhichOneof("kind") or "int64_list").value


def _versions(folder: Path) -> list[Path]:
    """Finished versions, oldest first."""
    if not folder.is_dir():
        return []
    versions = [p for p in folder.iterdir() if VERSION.match(p.name) and (p / "dataset_info.json").is_file()]
    return sorted(versions, key=lambda path: tuple(map(int, path.name.split("."))))


def _unfinished(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if "incomplete" in p.name) if folder.is_dir() else []


def read_info(tfds, folder: Path):
    """TFDS's information about a version's folder.

    Raises:
        DataError: TFDS cannot read it.
    """
    try:
        info = tfds.builder_from_directory(folder).info
    except Exception as error:  # whatever TFDS raises for broken JSON and missing files
        raise DataError(
            f"{folder.absolute()} is not a readable TFDS directory ({type(error).__name__}: {shown(str(error))}): "
            "prepare it again"
        ) from error
    if not info.splits:
        raise DataError(f"{folder.absolute()} has no splits: prepare it again")
    return info


def _times_255(encoded: bytes) -> np.ndarray:
    """dSprites stores 0 and 1."""
    from ..pixels import decode

    return decode(encoded)[..., :1] * np.uint8(255)


MANUAL = "It must be downloaded by hand"

# VTAB-1k's tasks, by NOAH's folder names.
VTAB_TFDS = {
    "caltech101": TFDS(
        "caltech101",
        "3.*.*",
        train_part(90),
        notes=(("*", "which images are in train depends on the file order on the machine that prepared Caltech101"),),
    ),
    "cifar": TFDS("cifar100", "3.*.*", train_part(90)),
    "dtd": TFDS("dtd", "3.*.*", OWN_VALIDATION),
    "oxford_flowers102": TFDS("oxford_flowers102", "2.*.*", OWN_VALIDATION),
    "oxford_iiit_pet": TFDS(
        "oxford_iiit_pet",
        "3.*.*",
        train_part(80),
        get="Versions 3.x and 4.0.0 are both read; only 4.0.0 can still be prepared",
        notes=(("4.*", "12 images of Oxford-IIIT Pet are re-encoded in version 4"),),
    ),
    "svhn": TFDS("svhn_cropped", "3.*.*", train_part(90)),
    "sun397": TFDS(
        "sun397/tfds",
        "4.*.*",
        OWN_VALIDATION,
        get="Its URL is dead: get SUN397.tar.gz and Partitions.zip, or use the VTAB-1k folder",
    ),
    "patch_camelyon": TFDS("patch_camelyon", "2.*.*", OWN_VALIDATION),
    "eurosat": TFDS(
        "eurosat/rgb",
        "2.*.*",
        train_only(60, 20),
        get="If dfki.de fails, torchvision's mirror has the same zip",
    ),
    "resisc45": TFDS(
        "resisc45",
        "3.*.*",
        train_only(60, 20),
        get=f"{MANUAL}: NWPU-RESISC45/<class>/*.jpg in the manual folder",
    ),
    "diabetic_retinopathy": TFDS(
        "diabetic_retinopathy_detection/btgraham-300",
        "3.*.*",
        OWN_VALIDATION,
        get=f"{MANUAL}, with a Kaggle account: train/, test/, sample/ and trainLabels.csv in the manual folder",
    ),
    "clevr_count": TFDS("clevr", "3.*.*", train_part(90, "validation"), labels.CLEVR_COUNT),
    "clevr_dist": TFDS("clevr", "3.*.*", train_part(90, "validation"), labels.CLEVR_DISTANCE),
    "dmlab": TFDS("dmlab", "2.0.1", OWN_VALIDATION),
    "kitti": TFDS(
        "kitti",
        "3.2.0",
        OWN_VALIDATION,
        labels.KITTI_DISTANCE,
        get="Versions 3.1.0 to 3.3.0 are read; only 3.3.0 can still be prepared",
    ),
    "dsprites_loc": TFDS("dsprites", "2.*.*", train_only(80, 10), labels.DSPRITES_LOCATION, _times_255),
    "dsprites_ori": TFDS("dsprites", "2.*.*", train_only(80, 10), labels.DSPRITES_ORIENTATION, _times_255),
    "smallnorb_azi": TFDS(
        "smallnorb",
        "2.*.*",
        fixed(train="train[:800]", val="test[:200]", test="test[50%:]"),
        labels.SMALLNORB_AZIMUTH,
    ),
    "smallnorb_ele": TFDS(
        "smallnorb",
        "2.*.*",
        fixed(train="train[:800]", val="test[:200]", test="test[50%:]"),
        labels.SMALLNORB_ELEVATION,
    ),
}
