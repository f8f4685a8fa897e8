"""Fine-grained data sets with VPT's splits: ``train.json``, ``val.json``, ``test.json`` beside the images.

Each file is one object {image name: class id}. VPT numbers the ids of each file on its own, so that a file which
lacks a class shifts labels silently; here the ids of train.json count, and an unknown one is an error.
"""

import json
from pathlib import Path

from .base import DataError, Source, files_split

SPLITS_URL = "https://cornell.box.com/v/vptfgvcsplits"


def FGVC(root: Path, folder: str, val_fraction: float) -> Source:
    """CUB, NABirds, Flowers, Dogs or Cars; image names start from ``folder``.

    Raises:
        DataError: a missing or broken JSON file, or a class id that train.json does not have.
    """
    root = Path(root)
    content = {name: _read(root / f"{name}.json") for name in ("train", "val", "test")}
    ids = sorted(set(content["train"].values()))
    index = {class_id: i for i, class_id in enumerate(ids)}
    splits = {}
    for name, labels in content.items():
        if unknown := sorted(set(labels.values()) - set(ids)):
            raise DataError(f"{root / name}.json has class ids that train.json does not have: {unknown[:10]}")
        splits[name] = files_split(root / folder, [(image, index[c]) for image, c in labels.items()])
    return Source([str(i) for i in ids], splits, "VPT's JSON splits")


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
