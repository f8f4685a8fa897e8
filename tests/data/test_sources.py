"""Sources: the digits' split, image folders with odd and broken files, list files, torchvision's sets, shards."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cfg
from image_sets import (
    folder_cfg,
    open_layout,
    write_cifar,
    write_fewshot,
    write_image,
    write_images,
    write_tar,
    write_vtab,
)
from PIL import Image
from scipy.io import savemat

from src.data.listing import tasks_table
from src.data.opened import open_data
from src.data.sources.base import DataError, Wanted, stratified
from src.data.sources.digits import Digits
from src.data.tasks import TASKS, find_task, implied_layout

CPU = torch.device("cpu")


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
    with pytest.raises(DataError, match=r"bomb\.png: it has 20000 x 20000 pixels, more than DATA\.MAX_PIXELS"):
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
    here = write_vtab(tmp_path)
    cfg = make_cfg(DATA__NAME="vtab-dtd", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs")
    data = open_data(cfg)
    assert (len(data.class_names), len(data.splits["train"]), len(data.splits["test"])) == (47, 6, 3)
    assert data.version == "VTAB-1k folder dtd, JPEG"
    assert "re-encoded as JPEG: not the original pixels" in data.notes[0]
    cfg.DATA.DATAPATH = str(here)
    assert len(open_data(cfg).splits["train"]) == 6
    (here / "test.txt").write_text("images/test/000000.jpg zero\n")
    with pytest.raises(DataError, match=r"test\.txt, line 1"):
        open_data(cfg)
    (here / "test.txt").write_text("images/test/000000.jpg 1\nimages/test/7.jpg 0\nimages/test/8.jpg 0\n")
    with pytest.raises(DataError, match=r"2 of the 3 images listed in .*test.txt are missing .*images/test/7.jpg"):
        open_data(cfg)
    (here / "test.txt").write_text("images/test/000000.jpg 47\n")
    with pytest.raises(DataError, match="dtd should have 47"):
        open_data(cfg)
    (here / "test.txt").unlink()
    with pytest.raises(DataError, match=r"has no test\.txt"):
        open_data(cfg)


def test_vtab_folders_of_other_files_are_not_called_jpeg(tmp_path):
    write_vtab(tmp_path, "png")
    source = open_layout("dtd", tmp_path)
    assert source.version == "VTAB-1k folder dtd, PNG"
    assert source.notes == []
    (tmp_path / "dtd" / "train800val200.txt").write_text("images/train800val200/000000.png 0\n")
    assert "train800val200.txt is not" in open_layout("dtd", tmp_path).notes[0]


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


# --- lists


def test_few_shot_lists(tmp_path):
    write_fewshot(tmp_path / "oxford-pets")
    source = open_layout("fewshot-pets", tmp_path, shots=1)
    assert source.splits["train"].keys == ["a b/0 c.jpg", "a b/1 c.jpg"]
    assert source.notes == ["train_meta.list.num_shot_1.seed_0 lists 1 images more than once; each is used once"]
    assert source.splits["test"].labels.tolist() == [1, 0]
    assert source.splits["val"].labels.tolist() == [36]
    assert (
        open_layout("oxford_pets-fewshot", tmp_path / "oxford-pets", split_seed=2).splits["train"].keys[0]
        == "a b/2 c.jpg"
    )
    with pytest.raises(
        DataError, match=r"DATA.SHOTS 4, DATA.SPLIT_SEED 0\); available: 1 shots with seed 0, 16 shots with"
    ):
        open_layout("fewshot-pets", tmp_path, shots=4)


@pytest.mark.parametrize("images", ["images", "", "train"])
def test_few_shot_images_are_found_where_they_are(tmp_path, images):
    write_fewshot(tmp_path / "oxford-pets", images)
    assert len(open_layout("fewshot-pets", tmp_path, shots=1).splits["train"].read(0)) > 100


def test_files_that_lists_name_are_all_counted(tmp_path):
    write_fewshot(tmp_path / "oxford-pets")
    for i in (0, 1):
        (tmp_path / "oxford-pets" / "images" / "a b" / f"{i} c.jpg").unlink()
    (tmp_path / "oxford-pets" / "annotations" / "train_meta.list.num_shot_1.seed_0").write_text(
        "\n".join(f"a b/{i} c.jpg 0" for i in range(4))
    )
    with pytest.raises(DataError, match=r"2 of the 4 images listed in .*seed_0 are missing below .*a b/0 c.jpg, a b/1"):
        open_layout("fewshot-pets", tmp_path, shots=1)
    (tmp_path / "oxford-pets" / "images").rename(tmp_path / "oxford-pets" / "pictures")
    with pytest.raises(DataError, match=r"such as a b/0 c.jpg, is below any of .*images"):
        open_layout("fewshot-pets", tmp_path, shots=1)


def test_own_lists(tmp_path):
    for i in range(4):
        write_image(tmp_path / "pictures" / f"{i}.png", (i, 0, 0))
    (tmp_path / "train.txt").write_text("0.png 0\n1.png 1\n2.png 1\n")
    (tmp_path / "pictures" / "test.txt").write_text("3.png 1\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    keys = dict(DATA__NAME="lists", DATA__DATAPATH=str(tmp_path / "pictures"), DATA__FEATURE="vit_micro_glyphs")
    cfg = make_cfg(DATA__TRAIN_LIST=str(tmp_path / "train.txt"), DATA__TEST_LIST="test.txt", **keys)
    data = open_data(cfg)
    assert data.class_names == ["cat", "dog"]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "test": 1}
    with pytest.raises(DataError, match=r"DATA.TRAIN_LIST is not set"):
        open_data(make_cfg(**keys))
    with pytest.raises(DataError, match=r"list file nowhere.txt is neither in"):
        open_data(make_cfg(DATA__TRAIN_LIST="nowhere.txt", **keys))
    (tmp_path / "train.txt").write_text("0.png 0\n1.png -1\n")
    with pytest.raises(DataError, match=r"train.txt, line 2: expected '<image> <label>', found '1.png -1'"):
        open_data(cfg)


SYNSETS = ("n01443537", "n01484850", "n02325366")  # goldfish 1, great white shark 2, wood rabbit 330


@pytest.mark.parametrize("labels", [(1, 2, 330), (0, 1, 2)], ids=["ImageNet's", "projected"])
def test_lists_of_imagenet_variants_end_up_with_imagenets_labels(tmp_path, labels):
    here = tmp_path / "imagenet-adversarial"
    lines = []
    for synset, label in zip(SYNSETS, labels, strict=True):
        name = f"imagenet-a/{synset}/0.003773_soap dispenser _ soap dispenser_0.28588653.jpg"
        write_image(here / name)
        lines.append(f"{name} {label}")
    (here / "annotations").mkdir()
    (here / "annotations" / "val_meta.list").write_text("\n".join(lines))
    source = open_layout("imagenet-a", tmp_path)
    assert source.splits["test"].labels.tolist() == [1, 2, 330]
    assert source.class_mask.tolist() == [1, 2, 330]
    assert len(source.class_names) == 1000
    assert source.class_names[1].startswith("goldfish")
    (here / "annotations" / "val_meta.list").write_text(
        "\n".join([*lines[:2], lines[2].replace(f" {labels[2]}", " 7")])
    )
    with pytest.raises(DataError, match=r"neither ImageNet's nor indices .* image 3"):
        open_layout("imagenet-a", tmp_path)


def test_class_folders_of_imagenet_variants(tmp_path):
    for synset in SYNSETS:
        write_image(tmp_path / "imagenet-r" / synset / "x.jpg")
    source = open_layout("imagenet-r", tmp_path)
    assert sorted(source.splits["test"].labels.tolist()) == source.class_mask.tolist() == [1, 2, 330]
    for label in (0, 2, 10, 999):
        write_image(tmp_path / "imagenetv2-matched-frequency-format-val" / str(label) / "x.jpeg")
    source = open_layout("imagenet-v2", tmp_path)
    labels = dict(zip(source.splits["test"].keys, source.splits["test"].labels.tolist(), strict=True))
    assert labels == {"0/x.jpeg": 0, "2/x.jpeg": 2, "10/x.jpeg": 10, "999/x.jpeg": 999}
    (tmp_path / "imagenet-r" / "n00000000").mkdir()
    with pytest.raises(DataError, match="not ImageNet classes: n00000000"):
        open_layout("imagenet-r", tmp_path)
    cfg = make_cfg(DATA__NAME="imagenet-v2", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs")
    with pytest.raises(DataError, match="imagenet-v2 has no training images"):
        open_data(cfg)


def test_imagenet_folders_and_shots(tmp_path):
    write_images(tmp_path / "imagenet", {"train": {s: 20 for s in SYNSETS}, "val": {s: 3 for s in SYNSETS}})
    source = open_layout("imagenet-16shot", tmp_path)
    assert np.bincount(source.splits["train"].labels).tolist() == [16] * 3
    assert len(source.splits["test"]) == 9
    few = open_layout("imagenet-100shot", tmp_path, shots=10)
    assert (len(few.splits["train"]), len(few.splits["val"])) == (27, 3)
    with pytest.raises(DataError, match=r"has 20 training images of class 0, but DATA.SHOTS is 100"):
        open_layout("imagenet-100shot", tmp_path)


def test_few_shot_lists_of_imagenet(tmp_path):
    write_images(tmp_path / "imagenet", {"train": {s: 2 for s in SYNSETS}, "val": {s: 3 for s in SYNSETS}})
    lists = tmp_path / "imagenet" / "annotations"
    lists.mkdir()
    (lists / "train_meta.list.num_shot_1.seed_0").write_text(
        "\n".join(f"{s}/1.png {i}" for i, s in zip((1, 2, 330), SYNSETS, strict=True))
    )
    source = open_layout("imagenet-16shot", tmp_path, shots=1)
    assert source.version.startswith("few-shot lists imagenet, 1 shots")
    assert source.splits["train"].labels.tolist() == [1, 2, 330]
    assert sorted(set(source.splits["test"].labels.tolist())) == [1, 2, 330]
    assert len(source.splits["test"]) == 9


def test_shots_of_own_images(tmp_path):
    write_images(tmp_path, {"train": {"a": 5, "b": 4}, "test": {"a": 1}})
    data = open_data(folder_cfg(tmp_path, DATA__SHOTS=3))
    assert np.bincount(data.splits["train"].labels).tolist() == [3, 3]
    assert open_data(folder_cfg(tmp_path, DATA__SHOTS=3)).splits["train"].keys == data.splits["train"].keys
    other = open_data(folder_cfg(tmp_path, DATA__SHOTS=3, DATA__SPLIT_SEED=1)).splits["train"].keys
    assert other != data.splits["train"].keys


def test_resisc_without_a_split(tmp_path):
    write_images(tmp_path, {"NWPU-RESISC45": {f"class{i}": 10 for i in range(45)}})
    source = open_layout("resisc45-225", tmp_path)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 180, "val": 45, "test": 90}
    assert np.bincount(source.splits["test"].labels).tolist() == [2] * 45
    assert np.bincount(source.splits["val"].labels).tolist() == [1] * 45


# --- torchvision's sets


def test_cifar_from_torchvisions_files(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)  # of files that are not the real ones
    monkeypatch.setattr(CIFAR100, "_load_meta", lambda self: setattr(self, "classes", [f"c{i}" for i in range(100)]))
    train = write_cifar(tmp_path, "train", "fine_labels", 10, 100)
    (tmp_path / "cifar-100-python").rename(tmp_path / "keep")
    write_cifar(tmp_path, "test", "fine_labels", 2, 100)
    (tmp_path / "keep" / "train").rename(tmp_path / "cifar-100-python" / "train")
    source = open_layout("cifar100-500", tmp_path)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 400, "val": 100, "test": 200}
    assert np.bincount(source.splits["train"].labels).tolist() == [4] * 100
    assert source.class_names[5] == "c5"
    split = source.splits["train"]
    number = int(split.keys[7].split("/")[1])
    np.testing.assert_array_equal(split.read(7), train["data"][number].reshape(3, 32, 32).transpose(1, 2, 0))
    (tmp_path / "train.txt").write_text("5\n17\n3\n")
    listed = open_layout("cifar100-500", tmp_path, lists={"train": str(tmp_path / "train.txt")})
    assert listed.splits["train"].keys == ["train/5", "train/17", "train/3"]
    (tmp_path / "train.txt").write_text("5\n1000\n")
    with pytest.raises(DataError, match=r"line 2: expected an index below 1,000"):
        open_layout("cifar100-500", tmp_path, lists={"train": str(tmp_path / "train.txt")})
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"torchvision cannot read CIFAR100 in .*corrupted.*download=True"):
        open_layout("cifar100-500", tmp_path)


def test_food_from_torchvisions_files(tmp_path):
    here = tmp_path / "food-101"
    (here / "meta").mkdir(parents=True)
    for split, count in (("train", 10), ("test", 2)):
        listed = {f"dish{c}": [f"dish{c}/{split}{i}" for i in range(count)] for c in range(101)}
        (here / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for c in range(101):
            for i in range(count):
                path = here / "images" / f"dish{c}" / f"{split}{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{c} {split} {i}".encode())
    source = open_layout("food101", tmp_path)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 909, "val": 101, "test": 202}
    split = source.splits["test"]
    assert source.class_names[split.labels[9]] in split.keys[9]
    assert split.read(9).decode() == f"{split.keys[9].split('/')[2][4:]} test {split.keys[9][-5]}"


def test_aircraft_and_textures_from_torchvisions_files(tmp_path):
    here = tmp_path / "fgvc-aircraft-2013b" / "data"
    (here / "images").mkdir(parents=True)
    (here / "variants.txt").write_text("707-320\nF/A-18\n")
    for split in ("train", "val", "test"):
        (here / f"images_variant_{split}.txt").write_text(f"{split}1 707-320\n{split}2 F/A-18\n")
        for i in (1, 2):
            (here / "images" / f"{split}{i}.jpg").write_bytes(f"{split}{i}".encode())
    source = open_layout("aircraft", tmp_path)
    assert source.class_names == ["707-320", "F/A-18"]
    assert [source.splits[name].read(1) for name in ("train", "val", "test")] == [b"train2", b"val2", b"test2"]
    textures = tmp_path / "dtd" / "dtd"
    (textures / "labels").mkdir(parents=True)
    for split in ("train", "val", "test"):
        (textures / "labels" / f"{split}1.txt").write_text(f"banded/{split}.jpg\nzigzagged/{split}.jpg\n")
        for name in ("banded", "zigzagged"):
            (textures / "images" / name).mkdir(parents=True, exist_ok=True)
            (textures / "images" / name / f"{split}.jpg").write_bytes(f"{name} {split}".encode())
    source = open_layout("dtd-full", tmp_path)
    assert source.splits["val"].labels.tolist() == [0, 1]
    assert source.splits["val"].read(1) == b"zigzagged val"


def test_pets_flowers_and_cars_from_torchvisions_files(tmp_path):
    here = tmp_path / "oxford-iiit-pet"
    (here / "annotations").mkdir(parents=True)
    (here / "images").mkdir()
    for split in ("trainval", "test"):
        (here / "annotations" / f"{split}.txt").write_text(
            "".join(f"{p}_{split}{i} {c} 1 1\n" for c, p in ((1, "Cat"), (2, "dog")) for i in range(20))
        )
        for pet in ("Cat", "dog"):
            for i in range(20):
                (here / "images" / f"{pet}_{split}{i}.jpg").write_bytes(f"{pet} {i}".encode())
    source = open_layout("pets-full", tmp_path)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 36, "val": 4, "test": 40}
    assert source.class_names == ["Cat", "Dog"]
    assert source.splits["test"].read(21) == b"dog 1"
    here = tmp_path / "flowers-102"
    (here / "jpg").mkdir(parents=True)
    savemat(here / "imagelabels.mat", {"labels": np.array([[2, 1, 1]])})
    savemat(here / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[3]]})
    for i in (1, 2, 3):
        (here / "jpg" / f"image_{i:05d}.jpg").write_bytes(f"{i}".encode())
    with pytest.raises(DataError, match=r"torchvision cannot read Flowers102 .*corrupted"):
        open_layout("flowers-full", tmp_path)
    here = tmp_path / "stanford_cars"
    (here / "devkit").mkdir(parents=True)
    with pytest.raises(DataError, match=r"torchvision cannot read StanfordCars .*its host is gone"):
        open_layout("cars-full", tmp_path)


def test_stl_from_torchvisions_files(tmp_path, monkeypatch):
    from torchvision.datasets import STL10

    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    here = tmp_path / "stl10_binary"
    here.mkdir()
    pixels = np.random.RandomState(0).randint(0, 255, (20, 3, 96, 96), dtype=np.uint8)
    for split in ("train", "test"):
        pixels.transpose(0, 1, 3, 2).tofile(here / f"{split}_X.bin")  # column by column
        np.repeat(np.arange(1, 11), 2).astype(np.uint8).tofile(here / f"{split}_y.bin")
    (here / "class_names.txt").write_text("\n".join(f"class{i}" for i in range(10)))
    source = open_layout("stl10", tmp_path)
    assert source.splits["test"].labels.tolist() == np.repeat(np.arange(10), 2).tolist()
    np.testing.assert_array_equal(source.splits["test"].read(3), pixels[3].transpose(1, 2, 0))


# --- shards


def test_tar_shards(tmp_path):
    write_tar(tmp_path / "train-0000.tar", {f"a{i}": i % 2 for i in range(20)})
    write_tar(tmp_path / "train-0001.tar", {f"b/{i}": i % 2 for i in range(20)})
    write_tar(tmp_path / "test-0000.tar", {"c": 1})
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    source = open_layout("folder", tmp_path)
    assert source.class_names == ["cat", "dog"]
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 32, "val": 8, "test": 1}
    for split in source.splits.values():
        for i, key in enumerate(split.keys):
            assert split.read(i).decode() == "image " + key.split("/", 1)[1]
    write_tar(tmp_path / "train-0002.tar", {"x": 1})
    with tarfile.open(tmp_path / "train-0002.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("y.png"))
    with pytest.raises(DataError, match=r"train-0002.tar: 1 keys lack the image or the .cls: y"):
        open_layout("folder", tmp_path)
    (tmp_path / "train-0002.tar").rename(tmp_path / "train-0002.tar.gz")
    with pytest.raises(DataError, match=r"train-0002.tar.gz is compressed"):
        open_layout("folder", tmp_path)


def test_parquet_shards(tmp_path):
    import pyarrow
    from pyarrow import parquet

    def table(names):
        images = [{"bytes": f"image {name}".encode(), "path": name} for name in names]
        about = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        made = pyarrow.table({"image": images, "label": [i % 2 for i in range(len(names))]})
        return made.replace_schema_metadata({"huggingface": json.dumps(about)})

    (tmp_path / "data").mkdir()
    for shard in range(2):
        names = [f"{shard} {i}" for i in range(50)]
        parquet.write_table(table(names), tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", row_group_size=7)
    parquet.write_table(table(["x", "y"]), tmp_path / "data" / "validation-00000-of-00001.parquet")
    parquet.write_table(table(["z"]), tmp_path / "data" / "test-00000-of-00001.parquet")
    source = open_layout("folder", tmp_path)
    assert source.class_names == ["cat", "dog"]
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 100, "val": 2, "test": 1}
    split = source.splits["train"]
    assert [split.read(i).decode() for i in (0, 49, 50, 99, 3)] == [
        f"image {n}" for n in ("0 0", "0 49", "1 0", "1 49", "0 3")
    ]
    assert split.labels.tolist() == [i % 2 for i in range(50)] * 2
    parquet.write_table(pyarrow.table({"pixels": [1]}), tmp_path / "data" / "train-9.parquet")
    with pytest.raises(DataError, match=r"train-9.parquet has no column image, label; it has \['pixels'\]"):
        open_layout("folder", tmp_path)


# --- the table


def test_every_task_says_how_to_get_it():
    for task in TASKS.values():
        assert task.layouts
        assert all(layout.expects() for layout in task.layouts)
        assert find_task(task.name) is task
        for alias in task.aliases:
            assert find_task(alias) is task


def test_peers_names_choose_what_is_read():
    assert implied_layout("processed_vtab-cifar") == implied_layout("process_vtab-cifar") == "noah"
    assert implied_layout("tfds_vtab-cifar(num_classes=100)") == "tfds"
    assert implied_layout("vtab-dtd") == ""
    assert find_task("process_vtab-oxford_iiit_pet").name == "pets"
    assert find_task("cub").name == "CUB"
    with pytest.raises(ValueError, match=r"did you mean cifar100"):
        find_task("cifarr100")


def test_two_layouts_at_one_place_are_chosen_between(tmp_path):
    write_vtab(tmp_path)
    cfg = make_cfg(
        DATA__NAME="dtd", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs", DATA__SOURCE="tfds"
    )
    with pytest.raises(DataError, match="tfds: dtd/<version>"):
        open_data(cfg)
    cfg.DATA.SOURCE = "noah"
    assert open_data(cfg).layout == "noah"
    cfg.DATA.SOURCE = "shards"
    with pytest.raises(DataError, match="dtd can only be read as: tfds, noah"):
        open_data(cfg)


def test_keys_without_effect_are_refused(tmp_path):
    write_vtab(tmp_path)
    keys = dict(DATA__NAME="dtd", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs")
    for key, value in (("SHOTS", 2), ("VERSION", "3.0.0"), ("TRAIN_LIST", "x.txt"), ("TEST_LIST", "x.txt")):
        with pytest.raises(DataError, match=rf"DATA.{key} has no effect on dtd, read as noah"):
            open_data(make_cfg(**keys, **{f"DATA__{key}": value}))


def test_list_tasks_says_what_is_here(tmp_path):
    write_vtab(tmp_path)
    table = tasks_table(str(tmp_path)).markdown()
    (row,) = (line for line in table.splitlines() if line.startswith("| dtd "))
    assert f"noah in {tmp_path / 'dtd'}" in row
    assert sum("noah in" in line for line in table.splitlines()) == 1
    assert "always" in next(line for line in table.splitlines() if line.startswith("| digits"))
