"""Fine-grained data sets with VPT's splits: ``train.json``, ``val.json``, ``test.json`` beside the images.

Each file is one object {image name: class id}. VPT numbers the ids of each file separately, so a file that
lacks a class silently shifts labels. Here train.json defines the ids, and an unknown id is an error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .base import DataError, FileSplit, Layout, Source, Wanted, printable, require_files
from .text import check_name, read_json

SPLITS = ("train", "val", "test")
SPLITS_URL = "https://cornell.box.com/v/vptfgvcsplits"


@dataclass(frozen=True)
class FGVC(Layout):
    """CUB, NABirds, Flowers, Dogs or Cars.

    Attributes:
        images: the folder that image names are relative to.
        folders: possible names of its folder below DATA.DATAPATH; DATA.DATAPATH may also be that folder.
    """

    images: str
    folders: tuple[str, ...] = ()
    kind: ClassVar[str] = "fgvc"

    def find(self, root: Path) -> Path | None:
        places = [root, *(root / name for name in self.folders)]
        return next((folder for folder in places if any((folder / f"{name}.json").is_file() for name in SPLITS)), None)

    def fits(self, folder: Path, num_classes: int) -> bool:
        return len(set(_read(folder / "train.json").values())) == num_classes

    def open(self, folder: Path, wanted: Wanted) -> Source:
        content = {name: _read(folder / f"{name}.json") for name in SPLITS}
        ids = sorted(set(content["train"].values()))
        index, splits = {class_id: i for i, class_id in enumerate(ids)}, {}
        for name, labels in content.items():
            if unknown := sorted(set(labels.values()) - set(ids), key=str):
                some = str(unknown[:10])[:300]
                raise DataError(f"{folder / name}.json has class ids that train.json does not have: {some}")
            items = [(image, index[class_id]) for image, class_id in labels.items()]
            require_files(folder / self.images, items, f"{name}.json")
            splits[name] = FileSplit(folder / self.images, items)
        names = [check_name(str(i), str(folder / "train.json")) for i in ids]
        return Source(names, splits, "VPT's JSON splits")

    def expects(self) -> str:
        images = f"in {self.images}/" if self.images else "beside them"
        return f"train.json, val.json and test.json (VPT's: {SPLITS_URL}), and the images {images}"


def _read(path: Path) -> dict[str, int | str]:
    if not path.is_file():
        raise DataError(
            f"{path.absolute()} is missing: train.json, val.json and test.json belong together "
            f"(VPT's are at {SPLITS_URL})"
        )
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} must be one object with an entry for every image: {{image name: class id}}")
    kinds = {type(class_id) for class_id in content.values()}
    if kinds not in ({int}, {str}):
        kinds -= {int} if int in kinds else {str}
        image = next(image for image, class_id in content.items() if type(class_id) in kinds)
        raise DataError(
            f"{path}: the class id of {printable(image)!r} is {str(content[image])[:100]!r}; "
            "ids must be all integers or all strings"
        )
    return content
