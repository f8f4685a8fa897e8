"""Fine-grained data sets with VPT's splits: ``train.json``, ``val.json``, ``test.json`` beside the images.

Each file is one object {image name: class id}. VPT numbers the ids of each file on its own, so that a file which
lacks a class shifts labels silently; here the ids of train.json count, and an unknown one is an error.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .base import DataError, FileSplit, Layout, Source, Wanted, require_files

SPLITS = ("train", "val", "test")
SPLITS_URL = "https://cornell.box.com/v/vptfgvcsplits"


@dataclass(frozen=True)
class FGVC(Layout):
    """CUB, NABirds, Flowers, Dogs or Cars.

    Attributes:
        images: the folder from which image names start.
    """

    images: str
    kind: ClassVar[str] = "fgvc"

    def find(self, root: Path) -> Path | None:
        return root if any((root / f"{name}.json").is_file() for name in SPLITS) else None

    def open(self, here: Path, wanted: Wanted) -> Source:
        content = {name: _read(here / f"{name}.json") for name in SPLITS}
        ids = sorted(set(content["train"].values()))
        index, splits = {class_id: i for i, class_id in enumerate(ids)}, {}
        for name, labels in content.items():
            if unknown := sorted(set(labels.values()) - set(ids)):
                raise DataError(f"{here / name}.json has class ids that train.json does not have: {unknown[:10]}")
            items = [(image, index[class_id]) for image, class_id in labels.items()]
            require_files(here / self.images, items, f"{name}.json")
            splits[name] = FileSplit(here / self.images, items)
        return Source([str(i) for i in ids], splits, "VPT's JSON splits")

    def expects(self) -> str:
        images = f"in {self.images}/" if self.images else "beside them"
        return f"train.json, val.json and test.json (VPT's: {SPLITS_URL}), and the images {images}"


def _read(path: Path) -> dict[str, int]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(
            f"{path.absolute()} is missing: DATA.DATAPATH must hold train.json, val.json and test.json "
            f"(VPT's are at {SPLITS_URL})"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
