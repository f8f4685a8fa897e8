"""TFDS directories: VTAB-1k's 19 tasks in both formats, against TFDS's own reader and rules written out again here."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import make_cfg
from PIL import Image
from tiny_tfds import BUILDERS, to_tfrecord, write_tiny

from src.data.opened import open_data
from src.data.sources.base import DataError, Wanted
from src.data.sources.labels import Rule, interval
from src.data.sources.records import open_records
from src.data.sources.tfds import TFDS, VTAB_TFDS, train_part
from src.data.tasks import TASKS, find_task

VTAB = [task for task in TASKS.values() if task.group in ("Natural", "Specialized", "Structured")]

# Task -> what VPT's code asks TFDS for, with the numbers that follow from the counts in tiny_tfds.py.
EXPRESSIONS = {
    "caltech101": ("train[:800]", "train[1800:2000]", "test"),
    "cifar100": ("train[:800]", "train[1800:2000]", "test"),
    "dtd": ("train[:800]", "validation[:200]", "test"),
    "flowers": ("train[:800]", "validation[:200]", "test"),
    "pets": ("train[:800]", "train[802:1002]", "test"),
    "svhn": ("train[:800]", "train[1800:2000]", "test"),
    "sun397": ("train[:800]", "validation[:200]", "test"),
    "camelyon": ("train[:800]", "validation[:200]", "test"),
    "eurosat": ("train[:800]", "train[1266:1466]", "train[1688:]"),
    "resisc45": ("train[:800]", "train[1201:1401]", "train[1601:]"),
    "retino": ("train[:800]", "validation[:200]", "test"),
    "clevr-count": ("train[:800]", "train[1800:2000]", "validation"),
    "clevr-distance": ("train[:800]", "train[1800:2000]", "validation"),
    "dmlab": ("train[:800]", "validation[:200]", "test"),
    "kitti": ("train[:800]", "validation[:200]", "test"),
    "dsprites-location": ("train[:800]", "train[3200:3400]", "train[3600:]"),
    "dsprites-orientation": ("train[:800]", "train[3200:3400]", "train[3600:]"),
    "smallnorb-azimuth": ("train[:800]", "test[:200]", "test[250:]"),
    "smallnorb-elevation": ("train[:800]", "test[:200]", "test[250:]"),
}


def clevr_distance(example) -> int:
    nearest = min(coords[2] for coords in example["objects"]["pixel_coords"])
    return sum(nearest > limit for limit in (8.0, 8.5, 9.0, 9.5, 10.0))


def kitti_distance(example) -> int:
    objects = zip(example["objects"]["type"], example["objects"]["location"], strict=True)
    depths = [location[2] for kind, location in objects if kind in (0, 1, 2)]
    nearest = min(depths, default=1000)
    return 0 if nearest <= 8 else 1 if nearest <= 20 else 2 if nearest <= 999 else 3


LABELS = {
    "clevr-count": lambda example: len(example["objects"]["size"]) - 3,
    "clevr-distance": clevr_distance,
    "kitti": kitti_distance,
    "dsprites-location": lambda example: int(example["label_x_position"] // 2),
    "dsprites-orientation": lambda example: int(example["label_orientation"] // 2.5),
    "smallnorb-azimuth": lambda example: int(example["label_azimuth"]),
    "smallnorb-elevation": lambda example: int(example["label_elevation"]),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A function: builder -> the folder that holds it in both formats, made when it is first asked for."""
    made = {}

    def get(builder: str) -> dict[str, Path]:
        if builder not in made:
            roots = {kind: tmp_path_factory.mktemp(kind) for kind in ("array_record", "tfrecord")}
            folder = write_tiny(builder, roots["array_record"])
            copy = roots["tfrecord"] / folder.relative_to(roots["array_record"])
            shutil.copytree(folder, copy)
            to_tfrecord(copy)
            made[builder] = roots
        return made[builder]

    return get


def tfds_layout(name: str) -> TFDS:
    return next(layout for layout in find_task(name).layouts if layout.kind == "tfds")


def open_task(name: str, root: Path, **wanted):
    layout = tfds_layout(name)
    return layout.open(layout.find(root), Wanted(**wanted))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_task_is_what_tfds_says(name, tiny):
    layout = tfds_layout(name)
    roots = tiny(layout.builder.split("/")[0])
    here = layout.find(roots["array_record"])
    (version,) = here.iterdir()
    builder = tfds.builder_from_directory(version)
    sources = [open_task(name, roots[kind]) for kind in ("array_record", "tfrecord")]
    label = LABELS.get(name, lambda example: int(example["label"]))
    for split, expression in zip(("train", "val", "test"), EXPRESSIONS[name], strict=True):
        raw = builder.as_data_source(split=expression, decoders={"image": tfds.decode.SkipDecoding()})
        expected = [raw[i] for i in range(len(raw))]
        for source in sources:
            found = source.splits[split]
            assert found.labels.tolist() == [label(example) for example in expected]
            for i in range(0, len(expected), 97):
                image = found.read(i)
                if name.startswith("dsprites"):
                    pixels = np.asarray(Image.open(io.BytesIO(expected[i]["image"])))
                    assert np.array_equal(image[..., 0], 255 * pixels)
                    assert set(np.unique(image)) <= {0, 255}
                else:
                    assert image == expected[i]["image"]
        assert len(set(sources[0].splits[split].keys)) == len(expected)
    assert len(sources[0].class_names) == find_task(name).num_classes
    assert sources[0].version.endswith("array_record" if version.name.startswith(layout.pin[0]) else layout.pin) or (
        "require" in sources[0].version
    )
    assert version.name in sources[0].version


def test_tables_of_builders_and_tasks_are_complete():
    assert len(VTAB) == len(VTAB_TFDS) == 19
    assert {layout.builder.split("/")[0] for layout in VTAB_TFDS.values()} == set(BUILDERS)
    assert set(EXPRESSIONS) == {task.name for task in VTAB}


def test_thresholds_are_strict():
    assert [interval(d, (-100.0, 8.0, 20.0, 999.0)) for d in (8, 8.001, 20, 20.001, 999, 1000)] == [0, 1, 1, 2, 2, 3]


def test_a_run_reads_it_and_says_what_it_read(tiny, tmp_path):
    roots = tiny("cifar100")
    keys = dict(DATA__DATAPATH=str(roots["tfrecord"]), DATA__FEATURE="vit_micro_glyphs", DATA__CROPSIZE=32)
    data = open_data(make_cfg(DATA__NAME="vtab-cifar(num_classes=100)", **keys))
    assert (data.layout, data.version) == ("tfds", "TFDS cifar100/3.0.2, tfrecord")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1000, "test": 100}
    assert any("test has 100 images; the benchmark has 10,000" in note for note in data.notes)
    loaders, corrupt = data.loaders(make_cfg(DATA__NAME="cifar100", DATA__BATCH_SIZE=64, **keys), "cpu")
    images, labels = next(iter(loaders["train"]))
    assert images.shape == (64, 3, 32, 32)
    assert labels.tolist() == data.splits["train"].labels[:64].tolist()
    assert not corrupt


def test_the_folder_may_be_named_at_any_depth(tiny):
    root = tiny("sun397")["array_record"]
    layout = tfds_layout("sun397")
    (version,) = (root / "sun397" / "tfds").iterdir()
    assert layout.find(root) == layout.find(root / "sun397") == layout.find(root / "sun397" / "tfds")
    assert layout.find(version) == version
    assert tfds_layout("dtd").find(version) is None
    assert tfds_layout("dtd").find(root) is None


def write_versions(root: Path, *versions: str) -> Path:
    for version in versions:
        write_tiny("oxford_iiit_pet", root, counts={"train": 1000, "test": 5}, version=version)
    return root / "oxford_iiit_pet"


def test_the_version_that_peers_use_is_preferred(tmp_path):
    here = write_versions(tmp_path, "3.1.0", "3.2.0", "4.0.0")
    source = open_task("pets", tmp_path)
    assert source.version == "TFDS oxford_iiit_pet/3.2.0, array_record"
    assert source.notes == []
    source = open_task("pets", tmp_path, version="4.0.0")
    assert source.version == "TFDS oxford_iiit_pet/4.0.0, array_record; VPT and FreqFiT require 3.*.*"
    assert source.notes == ["12 images of Oxford-IIIT Pet are re-encoded in version 4"]
    with pytest.raises(DataError, match=r"DATA.VERSION 9.9.9 .* available: 3.1.0, 3.2.0, 4.0.0"):
        open_task("pets", tmp_path, version="9.9.9")
    for version in ("3.1.0", "3.2.0"):
        shutil.rmtree(here / version)
    assert "4.0.0" in open_task("pets", tmp_path).version


def test_what_was_interrupted_is_no_version(tmp_path):
    here = write_versions(tmp_path, "4.0.0")
    (here / "4.0.0").rename(here / "incomplete.AB12CD_4.0.0")
    cfg = make_cfg(DATA__NAME="pets", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs")
    with pytest.raises(DataError, match=r"incomplete.AB12CD_4.0.0 is unfinished.*prepare it again"):
        open_data(cfg)


def test_too_few_images_for_the_split(tmp_path):
    write_tiny("cifar100", tmp_path, counts={"train": 500, "test": 5})
    with pytest.raises(DataError, match=r"train\[:800\]|train\[450:650\]"):
        open_task("cifar100", tmp_path)


def test_an_alternative_format_is_read_where_the_first_is_gone(tmp_path):
    folder = write_tiny("dtd", tmp_path)
    about = json.loads((folder / "dataset_info.json").read_text())
    about |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    (folder / "dataset_info.json").write_text(json.dumps(about))
    assert "array_record" in open_task("dtd", tmp_path).version


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_missing_and_damaged_files_are_named(tmp_path, file_format):
    folder = write_tiny("dtd", tmp_path, file_format)
    shards = sorted(folder.glob("dtd-train*"))
    assert len(shards) == 3
    whole = shards[1].read_bytes()
    shards[1].unlink()
    with pytest.raises(DataError, match=r"1 of 3 files of dtd/3.0.1 are missing: .*dtd-train"):
        open_task("dtd", tmp_path)
    if file_format == "tfrecord":
        shards[1].write_bytes(whole[:-30])
        with pytest.raises(DataError, match="truncated or damaged"):
            open_task("dtd", tmp_path)
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 4
        shards[1].write_bytes(changed)
        with pytest.raises(DataError, match=r"damaged"):
            open_task("dtd", tmp_path)
    else:
        changed = bytearray(whole)
        changed[len(whole) // 2 : len(whole) // 2 + 2000] = bytes(2000)
        shards[1].write_bytes(changed)
        with pytest.raises(DataError, match=r"dtd-train.*damaged"):
            open_task("dtd", tmp_path)
    shards[1].write_bytes(whole)
    (folder / "features.json").write_text("{")
    with pytest.raises(DataError, match=r"dtd.3\.0\.1 is not a readable TFDS directory.*prepare it again"):
        open_task("dtd", tmp_path)
    (folder / "features.json").unlink()
    with pytest.raises(DataError, match="is not a readable TFDS directory"):
        open_task("dtd", tmp_path)


def test_a_label_that_no_class_has_is_named(tmp_path):
    write_tiny("clevr", tmp_path, counts={"train": 2000, "validation": 5, "test": 5})
    few = TFDS("clevr", "3.*.*", train_part(90, "validation"), VTAB_TFDS["dsprites_loc"].label)
    with pytest.raises(DataError, match=r"is not clevr: .* features file_name, image, .*image and label_x_position"):
        few.open(few.find(tmp_path), Wanted())
    few = TFDS(
        "clevr", "3.*.*", train_part(90, "validation"), Rule(("objects/size",), lambda sizes: 8, tuple("abcdefgh"))
    )
    with pytest.raises(DataError, match=r"clevr/3.1.0 train\[:800\], .*: label 8 is not in 0..7"):
        few.open(few.find(tmp_path), Wanted())
    write_tiny("smallnorb", tmp_path, counts={"test": 500})
    with pytest.raises(DataError, match="is not smallnorb: it has the splits test"):
        open_task("smallnorb-azimuth", tmp_path)


def test_records_are_found_in_any_order_and_their_stamps_follow_the_file(tiny):
    for root in tiny("cifar100").values():
        (folder,) = (root / "cifar100").iterdir()
        info = tfds.builder_from_directory(folder).info
        whole, part = open_records(info, "train"), open_records(info, "train[700:] + test[:3]")
        assert len(part) == 1303
        assert [part[i] for i in (0, 600, 1299)] == [whole[i] for i in (700, 1300, 1999)]
        assert part[1300] == open_records(info, "test")[0]
        with pytest.raises(IndexError):
            part[1303]
        assert len({part.stamp(i) for i in range(len(part))}) == 1303
        with pytest.raises(DataError, match="splits: train, test"):
            open_records(info, "validation")


def test_many_shot_sizes_from_tfds(tiny, caplog):
    source = open_task("cifar100-500", tiny("cifar100")["array_record"], split_seed=3)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 400, "val": 100, "test": 100}
    assert not set(source.splits["train"].keys) & set(source.splits["val"].keys)
    again = open_task("cifar100-500", tiny("cifar100")["tfrecord"], split_seed=3)
    assert again.splits["train"].keys == source.splits["train"].keys
    other = open_task("cifar100-500", tiny("cifar100")["tfrecord"], split_seed=4)
    assert other.splits["train"].keys != source.splits["train"].keys
    clevr = open_task("clevr-distance-full", tiny("clevr")["tfrecord"])
    assert {name: len(split) for name, split in clevr.splits.items()} == {"train": 1800, "val": 200, "test": 60}


def test_overlapping_parts_of_a_small_set_are_warned_of(tmp_path, caplog):
    write_tiny("eurosat", tmp_path, counts={"train": 1100})
    keys = dict(DATA__NAME="eurosat", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs", DATA__CROPSIZE=32)
    cfg = make_cfg(DATA__TRAIN_SPLIT="train", **keys)
    with caplog.at_level(logging.WARNING):
        open_data(cfg).loaders(cfg, "cpu")
    assert "images of val are byte for byte also among the training images" in caplog.text


def test_tensorflow_is_never_imported(tiny, tmp_path):
    """With a TensorFlow on the path that notes every attempt to import it."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(
        "import pathlib, traceback\n"
        "pathlib.Path(__file__).with_name('imported').write_text(''.join(traceback.format_stack()))\n"
        "raise ImportError('no TensorFlow here')\n"
    )
    script = """
        import sys
        from src.configs.config import load_cfg
        from src.data.opened import open_data

        for root in sys.argv[1:]:
            backbone = ["DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32"]
            cfg = load_cfg("", ["DATA.NAME", "dtd", "DATA.DATAPATH", root, *backbone])
            loaders, _ = open_data(cfg).loaders(cfg, "cpu")
            print({name: sum(len(labels) for _, labels in loader) for name, loader in loaders.items()})
    """
    roots = list(tiny("dtd").values())
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, roots)]
    path = f"{tmp_path}{os.pathsep}{Path.cwd()}"
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'train': 1000, 'test': 60}\n" * len(roots)
    imported = tmp_path / "tensorflow" / "imported"
    assert not imported.exists(), imported.read_text()
