"""Tiny data sets in the real TFDS format, for the builders behind VTAB-1k, written without TensorFlow.

Names, versions, features and files are the real builders'; only what the examples hold is made up. Images are encoded
here, since TFDS would use TensorFlow for that.
"""

import contextlib
import io
import json
import os
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from src.data.sources.records import open_records, write_tfrecord

F = tfds.features

# Builder -> (config, images of each split, height and width where the feature leaves them open).
BUILDERS = {
    "caltech101": (None, {"train": 2000, "test": 60}, (60, 80)),
    "cifar100": (None, {"train": 2000, "test": 100}, None),
    "dtd": (None, {"train": 800, "validation": 200, "test": 60}, (60, 72)),
    "oxford_flowers102": (None, {"train": 810, "validation": 200, "test": 60}, (60, 70)),
    "oxford_iiit_pet": (None, {"train": 1003, "test": 60}, (60, 70)),
    "sun397": ("tfds", {"train": 800, "validation": 200, "test": 60}, (60, 70)),
    "svhn_cropped": (None, {"train": 2000, "test": 60, "extra": 3}, None),
    "patch_camelyon": (None, {"train": 800, "validation": 200, "test": 60}, None),
    "eurosat": ("rgb", {"train": 2111}, None),
    "resisc45": (None, {"train": 2003}, (64, 64)),
    "diabetic_retinopathy_detection": (
        "btgraham-300",
        {"sample": 3, "train": 800, "validation": 200, "test": 60},
        (60, 60),
    ),
    "clevr": (None, {"train": 2000, "validation": 60, "test": 10}, (40, 60)),
    "dmlab": (None, {"train": 800, "validation": 200, "test": 20}, (36, 48)),
    "dsprites": (None, {"train": 4001}, None),
    "smallnorb": (None, {"train": 800, "test": 501}, None),
    "kitti": (None, {"train": 800, "validation": 200, "test": 60}, (38, 124)),
}


def write_tiny(
    name: str,
    root: Path,
    file_format: str = "array_record",
    counts: dict | None = None,
    shards: int = 3,
    version: str = "",
) -> Path:
    """Write one; its version's folder. ``examples`` gives what was written, in any order."""
    config, usual, _ = BUILDERS[name]
    real, counts = tfds.builder_cls(name), counts or usual

    class Fake(real, skip_registration=True):
        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, count) for split, count in counts.items()}

        def _generate_examples(self, split, count):
            yield from examples(name, split, count, self.info.features)

    Fake.name = name
    Fake.pkg_dir_path = getattr(real, "pkg_dir_path", None)
    if version:
        Fake.VERSION = tfds.core.Version(version)
        Fake.SUPPORTED_VERSIONS = []
        for known in Fake.BUILDER_CONFIGS:
            known.version = None
    arguments = dict(data_dir=str(root), file_format="array_record") | ({"config": config} if config else {})
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder = Fake(**arguments)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    folder = Path(builder.data_dir)
    if file_format == "tfrecord":
        to_tfrecord(folder)
    return folder


def to_tfrecord(folder: Path) -> None:
    """Rewrite an ArrayRecord directory as TFDS would have written it in its old format."""
    info = tfds.builder_from_directory(folder).info
    for split in info.splits:
        for path in info.splits[split].filenames:
            start = int(path.split("-of-")[0].rsplit("-", 1)[1])
            lengths = info.splits[split].shard_lengths
            records = open_records(info, f"{split}[{sum(lengths[:start])}:{sum(lengths[: start + 1])}]")
            with open(folder / path.replace("array_record", "tfrecord"), "wb") as file:
                for i in range(len(records)):
                    write_tfrecord(file, records[i])
    for path in folder.glob("*.array_record-*"):
        path.unlink()
    about = json.loads((folder / "dataset_info.json").read_text())
    about["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(about))


def examples(name: str, split: str, count: int, features):
    """(key, example) of a split; images are encoded."""
    for i in range(count):
        key = f"{split}_{i:05d}"
        yield key, _fake(features, np.random.default_rng(zlib.crc32(f"{name} {key}".encode())), key, BUILDERS[name][2])


def _fake(feature, rng, key: str, size, path: str = ""):
    if isinstance(feature, F.FeaturesDict):
        return {name: _fake(inner, rng, key, size, f"{path}/{name}") for name, inner in feature.items()}
    if isinstance(feature, F.Sequence):
        least = 0 if "truncated" in str(feature) else 3  # KITTI has pictures without objects, CLEVR has not
        count = 1 if "question" in path else int(rng.integers(least, 11))
        return [_fake(feature.feature, rng, key, size, path) for _ in range(count)]
    if isinstance(feature, F.Image):
        return _image(feature, rng, size, path)
    if isinstance(feature, F.ClassLabel):
        return int(rng.integers(0, feature.num_classes))
    if isinstance(feature, F.BBoxFeature):
        return F.BBox(0.1, 0.1, 0.9, 0.9)
    if isinstance(feature, F.Text):
        return key if path.endswith(("file_name", "filename", "id", "name")) else "x"
    value = rng.random(feature.shape)
    if path.endswith("pixel_coords"):
        value = np.array([480 * rng.random(), 320 * rng.random(), 7 + 6 * rng.random()])
    if path.endswith("location"):
        value = np.array([5 * rng.normal(), 1.5, 60 * rng.random()])
    return np.asarray(value, dtype=feature.np_dtype)


def _image(feature, rng, size, path: str) -> bytes:
    """JPEG or PNG, as the real set has it, of a few random colours: (height, width) as far as they are open."""
    height, width, channels = feature.shape
    height, width, channels = height or size[0], width or size[1], channels or 3
    png = feature._encoding_format == "png" or channels == 1 or height == 32  # sets that come as arrays
    return _encoded(height, width, channels, png, int(rng.integers(20)))


@cache
def _encoded(height: int, width: int, channels: int, png: bool, number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BILINEAR))
    if (height, width, channels) == (64, 64, 1):  # dSprites: 0 and 1
        pixels = (pixels > 127).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if png else "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    target, file_format, *names = sys.argv[1:]
    os.makedirs(target, exist_ok=True)
    for builder in names or BUILDERS:
        print(write_tiny(builder, Path(target), file_format))
