"""Sources: the digits' split, image folders with odd and broken files, list files, torchvision's sets, shards."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cfg
from PIL import Image

from src.data.opened import open_data
from src.data.sources.base import DataError, Wanted, stratified
from src.data.sources.digits import Digits
from src.data.tasks import TASKS, find_task

CPU = torch.device("cpu")


def folder_cfg(path, **keys):
    return make_cfg(DATA__NAME="folder", DATA__DATAPATH=str(path), DATA__FEATURE="vit_micro_glyphs", **keys)


def write_images(root, counts: dict[str, dict[str, int]], size=(20, 30)):
    """``{"train": {"cat": 3}}`` -> train/cat/0.png ...; each image has a colour of its own."""
    for split, classes in counts.items():
        for number, (name, count) in enumerate(classes.items()):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", size, (40 * number, 3 * i, 7)).save(root / split / name / f"{i}.png")


# --- digits


def test_digits_are_split_as_vtab_splits():
    splits = Digits().open(Path(), Wanted()).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 800, "val": 200, "test": 797}
    keys = [key for split in splits.values() for key in split.keys]
    assert len(set(keys)) == 1797
    for split in splits.values():
        shares = np.bincount(split.labels) / len(split)
        assert abs(shares - 0.1).max() < 0.01


def test_digits_split_is_the_same_for_ever():
    splits = Digits().open(Path(), Wanted()).splits
    assert [int(k.split("/")[1]) for k in splits["test"].keys[:8]] == [0, 3, 7, 11, 12, 20, 21, 23]
    assert sum(int(k.split("/")[1]) for k in splits["val"].keys) == 175550


def test_digits_pixels_are_the_originals():
    from sklearn.datasets import load_digits

    split = Digits().open(Path(), Wanted()).splits["train"]
    number = int(split.keys[0].split("/")[1])
    image = split.read(0)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.round(load_digits().images[number] * 255 / 16))
    assert image.max() == 255


def test_training_on_trainval_does_not_validate():
    data = open_data(make_cfg(DATA__NAME="digits", DATA__FEATURE="vit_micro_glyphs"))
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 1000, "test": 797}
    data = open_data(make_cfg(DATA__NAME="digits", DATA__FEATURE="vit_micro_glyphs", DATA__TRAIN_SPLIT="train"))
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 800, "val": 200, "test": 797}


def test_percentage_takes_a_stratified_part():
    cfg = make_cfg(DATA__NAME="digits", DATA__FEATURE="vit_micro_glyphs", DATA__PERCENTAGE=0.1)
    labels = open_data(cfg).splits["train"].labels
    assert len(labels) == 100
    assert set(np.bincount(labels)) <= {9, 10, 11}


# --- splitting


def test_stratified_is_exact_and_leaves_one_of_each_class():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 1 + [3] * 2)
    chosen = stratified(labels, 17, seed=0)
    assert len(chosen) == len(set(chosen)) == 17
    assert np.bincount(labels[chosen], minlength=4)[2] == 0
    assert (stratified(labels, 17, seed=0) == chosen).all()
    assert len(stratified(labels, 83, seed=0)) == 83
    many_small = np.array([0] * 100 + list(range(1, 11)))
    assert np.bincount(many_small[stratified(many_small, 90, seed=0)], minlength=11).tolist() == [90] + [0] * 10


# --- folders


def test_folder_without_val_gets_a_stratified_one(tmp_path):
    write_images(tmp_path, {"train": {"cat": 20, "dog": 10}, "test": {"cat": 2, "dog": 3}})
    data = open_data(folder_cfg(tmp_path))
    assert data.class_names == ["cat", "dog"]
    assert np.bincount(data.splits["val"].labels).tolist() == [4, 2]
    assert np.bincount(data.splits["train"].labels).tolist() == [16, 8]
    assert not set(data.splits["train"].keys) & set(data.splits["val"].keys)
    assert open_data(folder_cfg(tmp_path, SEED=7)).splits["val"].keys == data.splits["val"].keys


def test_folder_with_val_uses_it(tmp_path):
    write_images(tmp_path, {"train": {"a": 2, "b": 2}, "val": {"a": 1, "b": 1}, "test": {"b": 1}})
    data = open_data(folder_cfg(tmp_path))
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 4, "val": 2, "test": 1}


def test_folder_problems_say_what_and_where(tmp_path):
    with pytest.raises(DataError, match=r"(?s)folder is not in .*train/<class>/<image>"):
        open_data(folder_cfg(tmp_path))
    write_images(tmp_path, {"train": {"a": 2, "b": 2}, "test": {"c": 1}})
    with pytest.raises(DataError, match=r"test.* has classes .*c"):
        open_data(folder_cfg(tmp_path))
    (tmp_path / "test" / "c").rename(tmp_path / "test" / "b")
    assert len(open_data(folder_cfg(tmp_path)).splits["test"]) == 1
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="no images for class empty"):
        open_data(folder_cfg(tmp_path))


def test_hidden_and_stray_files_are_not_trained_on(tmp_path, caplog):
    write_images(tmp_path, {"train": {"a": 4, "b": 4}, "test": {"a": 1}})
    for hidden in ("train/.ipynb_checkpoints", "train/a/.ipynb_checkpoints"):
        (tmp_path / hidden).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / hidden / "x.png")
    (tmp_path / "train" / "b" / "deep").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "train" / "b" / "deep" / "UPPER.PNG")
    Image.new("RGB", (9, 9)).save(tmp_path / "train" / "stray.png")
    (tmp_path / "train" / "a" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "elsewhere" / "linked.png")
    (tmp_path / "train" / "a" / "link").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level("WARNING"):
        data = open_data(folder_cfg(tmp_path))
    keys = data.splits["train"].keys + data.splits["val"].keys
    assert len(keys) == 10
    assert {"train/b/deep/UPPER.PNG", "train/a/link/linked.png"} <= set(keys)
    assert "2 files" in caplog.text
    assert "train/stray.png" in caplog.text


def test_a_picture_that_claims_to_be_enormous_is_listed(tmp_path):
    write_images(tmp_path, {"train": {"a": 5, "b": 5}, "test": {"a": 2}})
    Image.new("1", (20000, 20000)).save(tmp_path / "train" / "a" / "bomb.png")
    cfg = folder_cfg(tmp_path)
    with pytest.raises(DataError, match=r"bomb\.png: DecompressionBombError"):
        open_data(cfg).loaders(cfg, CPU)


def test_percentage_that_loses_a_class_says_so(tmp_path, caplog):
    write_images(tmp_path, {"train": {"a": 20, "b": 2}, "test": {"a": 2}})
    with caplog.at_level("WARNING"):
        open_data(folder_cfg(tmp_path, DATA__PERCENTAGE=0.1))
    assert "train has no image of 1 of the 2 classes: b" in caplog.text


def test_folder_with_another_number_of_classes_is_refused(tmp_path):
    write_images(tmp_path, {"train": {"a": 2, "b": 2}, "test": {"a": 1}})
    with pytest.raises(DataError, match=r"has 2 classes.*NUMBER_CLASSES"):
        open_data(folder_cfg(tmp_path, DATA__NUMBER_CLASSES=3))


def test_every_broken_file_is_listed_before_training(tmp_path):
    write_images(tmp_path, {"train": {"a": 5, "b": 5}, "test": {"a": 2, "b": 1}})
    (tmp_path / "train" / "a" / "0.png").write_text("no image")
    whole = (tmp_path / "test" / "a" / "1.png").read_bytes()
    (tmp_path / "test" / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train" / "b" / "notes.txt").write_text("not looked at")
    cfg = folder_cfg(tmp_path)
    with pytest.raises(DataError) as error:
        open_data(cfg).loaders(cfg, CPU)
    assert "train/a/0.png" in str(error.value)
    assert "test/a/1.png" in str(error.value)
    assert "notes.txt" not in str(error.value)

    cfg.DATA.CORRUPT = "skip"
    data = open_data(cfg)
    loaders, corrupt = data.loaders(cfg, CPU)
    assert len(corrupt) == 2
    assert len(loaders["test"].labels) == 2
    assert sum(len(labels) for _, labels in loaders["test"]) == 2


# --- list files and JSON splits


def test_vtab_folder_layout(tmp_path):
    here = tmp_path / "dtd"
    for split, count in (("train800", 4), ("val200", 2), ("test", 3)):
        (here / "images" / split).mkdir(parents=True)
        lines = []
        for i in range(count):
            Image.new("RGB", (9, 9), (i, 0, 0)).save(here / "images" / split / f"{i:06}.jpg")
            lines.append(f"images/{split}/{i:06}.jpg {i}")
        (here / f"{split}.txt").write_text("\n".join(lines))
    cfg = make_cfg(DATA__NAME="vtab-dtd", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs")
    data = open_data(cfg)
    assert (len(data.class_names), len(data.splits["train"]), len(data.splits["test"])) == (47, 6, 3)
    (here / "test.txt").write_text("images/test/000000.jpg zero\n")
    with pytest.raises(DataError, match=r"test\.txt, line 1"):
        open_data(cfg)


def test_fgvc_labels_follow_the_training_file(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("RGB", (9, 9)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "train.json").write_text(json.dumps({"a.jpg": 7, "b.jpg": 3, "c.jpg": 5}))
    (tmp_path / "val.json").write_text(json.dumps({"a.jpg": 7}))
    (tmp_path / "test.json").write_text(json.dumps({"b.jpg": 5}))
    source = find_task("cub").layouts[0].open(tmp_path, Wanted())
    assert source.splits["train"].labels.tolist() == [2, 0, 1]
    assert source.splits["val"].labels.tolist() == [2]
    assert source.splits["test"].labels.tolist() == [1]
    (tmp_path / "val.json").write_text(json.dumps({"a.jpg": 8}))
    with pytest.raises(DataError, match="8"):
        find_task("CUB").layouts[0].open(tmp_path, Wanted())
    (tmp_path / "val.json").unlink()
    with pytest.raises(DataError, match=r"val\.json is missing"):
        find_task("CUB").layouts[0].open(tmp_path, Wanted())


def test_names_of_vpt_and_freqfit_are_known():
    assert find_task("vtab-cifar(num_classes=100)") is TASKS["cifar100"]
    assert find_task('vtab-clevr(task="count_all")') is TASKS["clevr-count"]
    assert find_task("vtab-oxford_flowers102").num_classes == 102
    assert sum(task.group in ("Natural", "Specialized", "Structured") for task in TASKS.values()) == 19
    with pytest.raises(ValueError, match=r"cifar1000.*known: digits"):
        find_task("cifar1000")


def test_nothing_on_disk_for_a_benchmark_says_where_it_looked(tmp_path):
    cfg = make_cfg(DATA__NAME="cifar100", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs")
    with pytest.raises(DataError, match=r"(?s)cifar100 is not in .*tfds: cifar100/<version>.*noah: cifar/.*VTAB_SETUP"):
        open_data(cfg)
