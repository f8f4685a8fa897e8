"""torchvision's data sets, read from where torchvision stores them; nothing is downloaded and no image decoded."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import DataError, FileSplit, Layout, Source, Split, Wanted, count_classes, require_files
from .subsets import DRAWN, draw

# Class -> the folder below its root by which its files are recognised, and its arguments for each split.
SETS = {
    "CIFAR10": ("cifar-10-batches-py", {"train": dict(train=True), "test": dict(train=False)}),
    "CIFAR100": ("cifar-100-python", {"train": dict(train=True), "test": dict(train=False)}),
    "STL10": ("stl10_binary", {"train": dict(split="train"), "test": dict(split="test")}),
    "OxfordIIITPet": ("oxford-iiit-pet", {"train": dict(split="trainval"), "test": dict(split="test")}),
    "Flowers102": ("flowers-102", {name: dict(split=name) for name in ("train", "val", "test")}),
    "Food101": ("food-101", {"train": dict(split="train"), "test": dict(split="test")}),
    "DTD": ("dtd/dtd", {name: dict(split=name) for name in ("train", "val", "test")}),
    "FGVCAircraft": ("fgvc-aircraft-2013b", {name: dict(split=name) for name in ("train", "val", "test")}),
    "StanfordCars": ("stanford_cars", {"train": dict(split="train"), "test": dict(split="test")}),
}

# Where a class keeps its paths, for classes without a ``loader`` argument.
PATHS = ("_images", "_image_files", "_samples")


@dataclass(frozen=True)
class TorchvisionSet(Layout):
    """One of SETS.

    Attributes:
        name: torchvision's class.
        subset, val_size: see ``subsets.draw``; val_size None uses the set's own validation images, if it has any.
    """

    name: str
    subset: int = 0
    val_size: float | None = None
    kind: ClassVar[str] = "torchvision"
    takes: ClassVar[tuple[str, ...]] = DRAWN

    def find(self, root: Path) -> Path | None:
        folder = SETS[self.name][0]
        if (root / folder).is_dir():
            return root
        top = folder.split("/")[0]
        return root.parent if root.name == top and (root.parent / folder).is_dir() else None

    def open(self, folder: Path, wanted: Wanted) -> Source:
        import torchvision

        splits, names = {}, []
        for split, arguments in SETS[self.name][1].items():
            splits[split], classes = self._opened(_class(self.name), folder, arguments, split)
            if classes and names and classes != names:
                odd = sorted(set(classes) ^ set(names)) or classes
                raise DataError(f"{self.name} in {folder}: {split} has other classes than train: {', '.join(odd[:5])}")
            names = names or classes
        names = names or [str(i) for i in range(count_classes(splits, str(folder)))]
        splits = draw(splits, wanted, names, folder, self.subset, self.val_size)
        return Source(names, splits, f"torchvision {torchvision.__version__} {self.name}")

    def expects(self) -> str:
        path = f"{SETS[self.name][0]}/, as torchvision.datasets.{self.name} lays it out"
        if not self.downloads:
            return f"{path}; its host is gone, so torchvision can no longer download it (pytorch/vision issue 7545)"
        return f"{path}: vitune prepare downloads it, or {self.name}(..., download=True) in Python"

    @property
    def downloads(self) -> bool:
        """Whether torchvision can still download it."""
        return self.name != "StanfordCars"

    def download(self, root: Path) -> None:
        """Let torchvision download and unpack it into ``root``.

        Raises:
            OSError, RuntimeError: the download failed, or does not match torchvision's checksum.
        """
        import torchvision

        for arguments in SETS[self.name][1].values():
            getattr(torchvision.datasets, self.name)(root, **arguments, download=True)

    def _opened(self, kind: type, folder: Path, arguments: dict, name: str) -> tuple[Split, list[str]]:
        """A split and its class names, if it has any."""
        extra = {"loader": Path} if "loader" in inspect.signature(kind).parameters else {}
        try:
            opened = kind(folder, **arguments, **extra)
            return _split(opened, name, folder), list(getattr(opened, "classes", ()))
        except DataError:
            raise
        except Exception as error:  # "not found or corrupted", missing or broken index files, a missing scipy
            raise DataError(
                f"torchvision cannot read {self.name} in {folder.absolute()} ({type(error).__name__}: {error}). "
                f"Expected: {self.expects()}"
            ) from error


def _class(name: str) -> type:
    from torchvision import datasets

    if name == "STL10":  # without its unlabelled images: 2.8 GB whose checksum would be computed needlessly
        labelled = [entry for entry in datasets.STL10.train_list if "unlabeled" not in entry[0]]
        return type("STL10", (datasets.STL10,), {"train_list": labelled})
    return getattr(datasets, name)


def _split(opened, name: str, folder: Path) -> Split:
    """A torchvision data set as a split, of arrays or files."""
    if isinstance(getattr(opened, "data", None), np.ndarray):
        labels = np.array(opened.targets if hasattr(opened, "targets") else opened.labels, int)
        images = opened.data
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        if images.shape[1] == 3:  # STL-10: (N, 3, H, W)
            images = images.transpose(0, 2, 3, 1)
        files = opened.train_list if name == "train" else opened.test_list
        facts = [(folder / opened.base_folder / file).stat() for file, _ in files]
        stamp = " ".join(f"{fact.st_size} {fact.st_mtime_ns}" for fact in facts)
        keys = [f"{name}/{i}" for i in range(len(images))]
        return Split(lambda i: np.ascontiguousarray(images[i]), labels, keys, lambda i: stamp)
    if getattr(opened, "loader", None) is Path:  # then the image is its path
        pairs = (opened[i] for i in range(len(opened)))
    else:
        pairs = next(getattr(opened, attribute) for attribute in PATHS if hasattr(opened, attribute))
        pairs = zip(pairs, opened._labels, strict=True) if hasattr(opened, "_labels") else pairs
    root = folder.absolute()
    items = [(str(Path(path).absolute()).removeprefix(f"{root}/"), int(label)) for path, label in pairs]
    require_files(root, items, f"torchvision's {type(opened).__name__}")
    return FileSplit(root, items)
