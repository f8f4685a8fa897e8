"""Data as people have it: split folders by other names or none, odd file names, labels that several files number alike
or not, and marks, folders and links that systems leave behind."""

import json
import os
import resource
import tarfile
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
import tiny_tfds
import torch
from image_sets import folder_cfg, open_layout, write_image, write_images, write_tar
from PIL import Image
from pyarrow import parquet

from src.configs.config import ConfigError
from src.data.opened import open_data
from src.data.sources.base import DataError, Wanted
from src.data.sources.text import read_names
from src.tools.finished.sets import Classes, read_mapping

BOM = b"\xef\xbb\xbf"


def sizes(data) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def per_class(split, classes: int) -> list[int]:
    return np.bincount(split.labels, minlength=classes).tolist()


# --- which folder is what


def test_class_folders_without_a_split_are_split(tmp_path, caplog):
    write_images(tmp_path, {"": {"cat": 20, "dog": 5, "eel": 3, "fox": 2, "gnu": 1}})
    (tmp_path / "scripts").mkdir()
    with caplog.at_level("INFO"):
        data = open_data(folder_cfg(tmp_path))
    assert data.class_names == ["cat", "dog", "eel", "fox", "gnu"]
    # a fifth of 31 and of the 25 that are left, in proportion; one of each class that has so many
    assert per_class(data.splits["test"], 5) == [4, 1, 1, 1, 0]
    assert per_class(data.splits["val"], 5) == [3, 1, 1, 0, 0]
    assert per_class(data.splits["train"], 5) == [13, 3, 1, 1, 1]
    keys = [key for split in data.splits.values() for key in split.keys]
    assert len(set(keys)) == 31
    said = "\n".join(data.notes)
    assert "has class folders without a split of its own: test is a stratified 0.2" in said
    assert "2 classes have fewer than 3 images and are not in every split: fox, gnu" in said
    assert "not used because they have no images: scripts" in said
    assert said.splitlines()[0] in caplog.text
    other = open_data(folder_cfg(tmp_path, SEED=7, DATA__SPLIT_SEED=3))
    assert other.splits["test"].keys == data.splits["test"].keys
    assert other.splits["val"].keys != data.splits["val"].keys
    assert open_data(folder_cfg(tmp_path, SEED=8)).splits["val"].keys == data.splits["val"].keys
    half = open_data(folder_cfg(tmp_path, DATA__TEST_FRACTION=0.5))
    assert per_class(half.splits["test"], 5)[:2] == [10, 2] or per_class(half.splits["test"], 5)[:2] == [10, 3]


def test_class_folders_with_one_image_each_cannot_be_split(tmp_path):
    write_images(tmp_path, {"": {"a": 1, "b": 1, "c": 1}})
    with pytest.raises(DataError, match="there is neither a validation nor a test set"):
        open_data(folder_cfg(tmp_path))


def test_the_train_folder_alone_is_said_to_be_one(tmp_path):
    write_images(tmp_path, {"train": {"a": 5, "b": 5}, "test": {"a": 1}})
    notes = open_data(folder_cfg(tmp_path / "train")).notes
    assert any("is a split folder of" in note for note in notes)


def test_a_class_may_be_called_train(tmp_path):
    write_images(tmp_path, {"": {"train": 5, "car": 5, "ship": 5}})
    assert open_data(folder_cfg(tmp_path)).class_names == ["car", "ship", "train"]


def test_split_folders_without_class_folders_are_no_classes(tmp_path):
    write_images(tmp_path, {"": {"train": 5, "test": 5}})
    with pytest.raises(DataError, match=r"has no class folders|folder is not in"):
        open_data(folder_cfg(tmp_path))


@pytest.mark.parametrize("names", [("Train", "VALID", "Test"), ("training", "validation", "testing")])
def test_split_folders_go_by_other_names(tmp_path, names, caplog):
    train, val, test = names
    write_images(tmp_path, {train: {"a": 4, "b": 4}, val: {"a": 2, "b": 1}, test: {"a": 1}})
    with caplog.at_level("INFO"):
        data = open_data(folder_cfg(tmp_path))
    assert sizes(data) == {"train": 8, "val": 3, "test": 1}
    assert f"val is {val}/" in data.version
    assert f"test is {test}/" in caplog.text


def test_two_folders_for_one_split_are_an_error(tmp_path):
    write_images(tmp_path, {"train": {"a": 4, "b": 4}, "val": {"a": 1}, "valid": {"b": 1}, "test": {"a": 1}})
    with pytest.raises(DataError, match=r"has val/ and valid/, which could both be val"):
        open_data(folder_cfg(tmp_path))


def test_folders_that_are_not_used_and_a_missing_test_set_are_told(tmp_path, caplog):
    write_images(tmp_path, {"train": {"a": 8, "b": 8}, "tset": {"a": 2}})
    with caplog.at_level("WARNING"):
        data = open_data(folder_cfg(tmp_path))
    said = "\n".join(data.notes)
    assert "not used: tset" in said
    assert "no test images" in said
    assert all(note in caplog.text for note in data.notes)
    assert "no test images" not in str(open_data(folder_cfg(tmp_path, DATA__NO_TEST=True)).notes)


def test_a_misspelt_train_folder_is_told(tmp_path):
    photos = tmp_path / "photos"
    write_images(photos, {"trian": {"a": 4, "b": 4}, "test": {"a": 1}})
    with pytest.raises(DataError, match=r"has no train/; it has the folders test, trian"):
        open_data(folder_cfg(photos))
    (photos / "trian").rename(photos / "train")
    with pytest.raises(DataError, match=r"has split folders: should DATA.DATAPATH be that folder"):
        open_data(folder_cfg(tmp_path))


def test_the_only_image_of_a_class_trains(tmp_path):
    write_images(tmp_path, {"train": {f"c{i:02d}": 1 for i in range(12)}, "test": {"c00": 1}})
    data = open_data(folder_cfg(tmp_path))
    assert sizes(data) == {"train": 12, "test": 1}
    assert "there are no validation images" in "\n".join(data.notes)
    write_images(tmp_path, {"train": {"d": 10}})
    data = open_data(folder_cfg(tmp_path))
    assert per_class(data.splits["train"], 13)[:12] == [1] * 12
    assert set(data.splits["val"].labels) == {12}


# --- names


def test_names_that_are_not_utf8_train(tmp_path):
    write_images(tmp_path, {"train": {"cat": 4, "dog": 4}, "test": {"cat": 1}})
    os.rename(os.fsencode(tmp_path / "train/cat/0.png"), os.fsencode(tmp_path) + b"/train/cat/caf\xe9.png")
    cfg = folder_cfg(tmp_path)
    data = open_data(cfg)
    _, left_out = data.loaders(cfg, torch.device("cpu"))
    assert left_out == []
    keys = data.splits["train"].keys + data.splits["val"].keys
    assert r"train/cat/caf\xe9.png" in keys
    "\n".join(keys).encode()
    os.mkdir(os.fsencode(tmp_path) + b"/train/\xe9t\xe9")
    with pytest.raises(DataError, match=r"class name .* is not UTF-8: rename it"):
        open_data(cfg)


def test_class_names_that_look_alike_are_one(tmp_path):
    nfc, nfd = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    write_images(tmp_path, {"train": {nfc: 4, "owl": 4, "tee": 4}, "test": {nfd: 2, "owl ": 3}})
    data = open_data(folder_cfg(tmp_path))
    assert data.class_names == [nfc, "owl", "tee"]
    assert per_class(data.splits["test"], 3) == [2, 3, 0]
    (tmp_path / "test" / "Tee").mkdir()
    with pytest.raises(DataError, match=r"has classes that train/ does not have: 'Tee' \(did you mean 'tee'\?\)"):
        open_data(folder_cfg(tmp_path))
    (tmp_path / "test" / "Tee").rename(tmp_path / "train" / nfd)
    with pytest.raises(DataError, match=r"look alike"):
        open_data(folder_cfg(tmp_path))


def test_folders_of_systems_and_links_in_circles_are_left_out(tmp_path):
    write_images(tmp_path, {"train": {"cat": 5, "dog": 5}, "test": {"cat": 1}})
    for place in ("train/cat/@eaDir/0.png", "train/@eaDir", "train/dog/__MACOSX", "__MACOSX/x"):
        write_image(tmp_path / place / "SYNOPHOTO_THUMB_XL.jpg")
    (tmp_path / "train/cat/self").symlink_to(tmp_path / "train/cat")
    (tmp_path / "train/cat/up").symlink_to(tmp_path / "train")
    (tmp_path / "train/cat/loop.png").symlink_to(tmp_path / "train/cat/loop.png")
    os.mkfifo(tmp_path / "train/cat/pipe.png")
    data = open_data(folder_cfg(tmp_path))
    assert data.class_names == ["cat", "dog"]
    assert len(data.splits["train"]) + len(data.splits["val"]) == 10
    said = "\n".join(data.notes)
    assert "6 files" in said or "7 files" in said
    assert "(a system folder)" in said
    assert "up (a link to a folder that contains it)" in said or "self (a link to a folder that contains it)" in said


def test_one_image_with_two_labels_is_noted(tmp_path):
    write_images(tmp_path, {"train": {"cat": 5, "dog": 5}, "val": {"cat": 1}, "test": {"cat": 1}})
    (tmp_path / "train/cat/more").symlink_to(tmp_path / "train/dog")
    cfg = folder_cfg(tmp_path)
    data = open_data(cfg)
    data.loaders(cfg, torch.device("cpu"))
    (said,) = [note for note in data.notes if "with another label" in note]
    assert "5 images of train occur there again with another label" in said
    assert "train/cat/more/0.png" in said
    assert "train/dog/0.png" in said


# --- text


def lists_cfg(root, **keys):
    cfg = folder_cfg(root, DATA__TRAIN_LIST="train.txt", DATA__TEST_LIST="train.txt", **keys)
    cfg.DATA.NAME = "lists"
    return cfg


@pytest.fixture
def listed(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"{i}.png", (60 * i, 0, 0))
    (tmp_path / "train.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(4)))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def test_byte_order_marks_are_no_text(listed, tmp_path):
    for name in ("train.txt", "classes.txt"):
        (listed / name).write_bytes(BOM + (listed / name).read_bytes().replace(b"\n", b"\r\n"))
    data = open_data(lists_cfg(listed))
    assert data.class_names == ["cat", "dog"]
    assert data.splits["train"].keys == ["0.png", "1.png", "2.png", "3.png"]
    for split in ("train", "val", "test"):
        (listed / f"{split}.json").write_bytes(BOM + b'{"0.png": 4, "1.png": 2}')
    (listed / "images").symlink_to(listed)
    assert open_layout("CUB", listed, "fgvc").splits["train"].labels.tolist() == [1, 0]
    (tmp_path / "map.csv").write_bytes(BOM + b"cat,dog\r\ndog,cat\r\n")
    assert read_mapping(str(tmp_path / "map.csv")) == {"cat": "dog", "dog": "cat"}
    (tmp_path / "map.json").write_bytes(BOM + b'{"cat": null}')
    assert read_mapping(str(tmp_path / "map.json")) == {"cat": None}


def test_lists_in_two_folders_are_matched_by_their_class_names(listed):
    (listed / "other").mkdir()
    (listed / "other" / "val.txt").write_text("0.png 1\n1.png 2\n")
    (listed / "other" / "classes.txt").write_text("owl\ncat\ndog\n")
    data = open_data(lists_cfg(listed, DATA__VAL_LIST="other/val.txt"))
    assert [data.class_names[label] for label in data.splits["val"].labels] == ["cat", "dog"]
    (listed / "other" / "val.txt").write_text("0.png 0\n")
    with pytest.raises(DataError, match=r"has classes that the training list's classes.txt does not have: 'owl'"):
        open_data(lists_cfg(listed, DATA__VAL_LIST="other/val.txt"))


@pytest.mark.parametrize("label", ["2000000000", "99999999999999999999", "-1", "1.0", "1e3"])
def test_an_absurd_label_is_an_error_in_no_time(listed, label):
    with open(listed / "train.txt", "a", encoding="utf-8") as file:
        file.write(f"3.png {label}\n")
    with pytest.raises(DataError, match=r"train\.txt.*3\.png"):
        open_data(lists_cfg(listed))


def test_a_blank_line_among_class_names_is_an_error(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n\n")
    with pytest.raises(DataError, match=r"classes.txt, line 2 is blank"):
        read_names(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n")
    assert read_names(tmp_path / "classes.txt") == ["cat", "dog"]


def test_lists_from_windows_get_a_hint(listed):
    (listed / "train.txt").write_text("photos\\cat\\0.png 0\nphotos\\dog\\1.png 1\n")
    with pytest.raises(DataError, match=r"names have backslashes: replace them with /"):
        open_data(lists_cfg(listed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0.png": 1, "0.png": 2}', "'0.png' occurs twice"),
        ('{"0.png": [1]}', r"class id of '0.png' is '\[1\]'"),
        ('{"0.png": 1, "1.png": "a"}', "ids must be all integers or all strings"),
        ('{"0.png": 1.5}', "ids must be all integers"),
        ("[1, 2]", "must be one object"),
    ],
)
def test_json_splits_that_contradict_themselves_are_errors(listed, content, message):
    for split in ("train", "val", "test"):
        (listed / f"{split}.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_layout("CUB", listed, "fgvc")


# --- classes of foreign sets


def classes(names, mapping=None) -> Classes:
    return Classes(SimpleNamespace(class_names=names, folder=SimpleNamespace(path=Path("run"))), mapping or {})


def test_very_names_count_before_spellings():
    assert classes(["Cat", "cat", "dog"]).numbers(["cat", "dog", "Cat"], "mine").tolist() == [1, 2, 0]
    assert classes(["big cat", "dog"]).numbers(["Dog", "big_cat"], "mine").tolist() == [1, 0]
    assert classes(["crane", "dog", "crane"]).numbers(["crane", "dog", "crane"], "mine").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="'CAT', which matches several: 'Cat', 'cat'"):
        classes(["Cat", "cat", "dog"]).numbers(["CAT"], "mine")
    with pytest.raises(DataError, match="'big cat', 'big-cat', which all match 'big_cat'"):
        classes(["big_cat", "dog"]).numbers(["big cat", "big-cat"], "mine")


def test_every_entry_of_a_mapping_must_be_for_a_class():
    mapped = classes(["cat", "dog", "owl"], {"cat": "dog", "dog": "cat", "bird": None})
    assert mapped.numbers(["bird", "cat", "dog", "owl"], "mine").tolist() == [-1, 1, 0, 2]
    mapped.require_used()
    useless = classes(["cat", "dog"], {"\ufeffcat": "dog", "dog": "cat"})
    useless.numbers(["cat", "dog"], "mine")
    with pytest.raises(DataError, match=r"1 entries match no class of the test sets: '\\ufeffcat'"):
        useless.require_used()
    with pytest.raises(DataError, match="--classes has 1 classes that run does not have: bird"):
        classes(["cat", "dog"], {"cat": "bird"})


def test_a_mapping_with_a_name_twice_is_an_error(tmp_path):
    (tmp_path / "map.csv").write_text("cat,dog\ncat,owl\n")
    with pytest.raises(ConfigError, match="'cat' occurs twice"):
        read_mapping(str(tmp_path / "map.csv"))


# --- shards


def table(labels, names=(), kind=None):
    images = [{"bytes": f"image {i} {label}".encode(), "path": None} for i, label in enumerate(labels)]
    made = pyarrow.table({"image": images, "label": pyarrow.array(labels, kind)})
    about = {"info": {"features": {"label": {"names": list(names)}}}} if names else {}
    return made.replace_schema_metadata({"huggingface": json.dumps(about)})


def test_parquet_labels_are_matched_by_name(tmp_path):
    parquet.write_table(table([0, 1, 2] * 4, ["cat", "dog", "owl"]), tmp_path / "train-0.parquet")
    parquet.write_table(table([0, 1, 2] * 4, ["owl", "cat", "dog"]), tmp_path / "train-1.parquet")
    parquet.write_table(table([0, 1, 2], ["owl", "dog", "cat"]), tmp_path / "valid.parquet")
    parquet.write_table(table(["dog", "owl"]), tmp_path / "test-0.parquet")
    source = open_layout("folder", tmp_path)
    assert source.class_names == ["cat", "dog", "owl"]
    assert source.splits["train"].labels.tolist() == [0, 1, 2] * 4 + [2, 0, 1] * 4
    assert source.splits["val"].labels.tolist() == [2, 1, 0]
    assert source.splits["test"].labels.tolist() == [1, 2]
    parquet.write_table(table([0], ["owl", "dog", "owl"]), tmp_path / "test-0.parquet")
    with pytest.raises(DataError, match=r"two classes are named 'owl'"):
        open_layout("folder", tmp_path)
    parquet.write_table(table([0], ["bee"]), tmp_path / "test-0.parquet")
    with pytest.raises(DataError, match=r"test-0.parquet has classes that train does not have: 'bee'"):
        open_layout("folder", tmp_path)


def test_parquet_labels_may_be_text(tmp_path):
    parquet.write_table(table(["owl", "cat", "dog"] * 4), tmp_path / "train.parquet")
    parquet.write_table(table(["dog"]), tmp_path / "test.parquet")
    source = open_layout("folder", tmp_path)
    assert source.class_names == ["cat", "dog", "owl"]
    assert source.splits["test"].labels.tolist() == [1]
    (tmp_path / "classnames.txt").write_text("dog\nowl\ncat\n")
    source = open_layout("folder", tmp_path)
    assert source.class_names == ["dog", "owl", "cat"]
    assert source.splits["test"].labels.tolist() == [0]


ODD_LABELS = {
    "whole numbers as floats": ([0.0, 1.0] * 4, None, ""),
    "halves": ([0.0, 1.5] * 4, None, r"column label, row 1: 1.5 is not a class"),
    "nothing": ([0, None] * 4, None, r"4 of 8 rows have no label"),
    "nan": ([0.0, float("nan")] * 4, None, r"column label, row 1: nan is not a class"),
    "negative": ([0, -1] * 4, None, r"column label, row 1: class -1 does not exist"),
    "absurd": ([0, 2_000_000_000] * 4, None, r"has the label 2000000000"),
    "larger": ([0, 2**63] * 4, pyarrow.uint64(), r"row 1: class 9223372036854775808 does not exist"),
    "lists": ([[0], [1]] * 4, None, r"column label holds list"),
}


@pytest.mark.parametrize("case", ODD_LABELS)
def test_parquet_labels_of_other_types_are_taken_or_named(tmp_path, case):
    labels, kind, message = ODD_LABELS[case]
    for split in ("train", "test"):
        parquet.write_table(table(labels, kind=kind), tmp_path / f"{split}.parquet")
    if message:
        with pytest.raises(DataError, match=message):
            open_layout("folder", tmp_path)
    else:
        assert open_layout("folder", tmp_path).splits["test"].labels.tolist() == [0, 1] * 4


def add_to_tar(path, **members: bytes):
    with tarfile.open(path, "a") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            (path.parent / "member").write_bytes(content)
            with open(path.parent / "member", "rb") as file:
                archive.addfile(member, file)


def test_dots_in_keys_of_tar_files_lose_no_image(tmp_path):
    write_tar(tmp_path / "train-0.tar", {f"img{i}.v2": i % 2 for i in range(20)} | {f"img{i}": i % 2 for i in range(4)})
    write_tar(tmp_path / "test-0.tar", {"a.b.c": 1})
    add_to_tar(tmp_path / "test-0.tar", **{"a.b.c.json": b"{}", "._a.b.c.jpg": b"x"})
    source = open_layout("folder", tmp_path)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 19, "val": 5, "test": 1}
    assert source.notes == ["test-0.tar: left out are 1 .json files, 1 hidden files"]
    add_to_tar(
        tmp_path / "test-0.tar", **{"a.b.c.mask.png": b"a mask", "b.jpg": b"x", "b.cls": b"0", "b.seg.png": b"m"}
    )
    with pytest.raises(DataError, match=r"1 keys lack the image or the .cls: a.b.c.mask"):
        open_layout("folder", tmp_path)


@pytest.mark.parametrize("label", [b"99999999999999999999", b"cat", b"-1", b"", b"1" * 10_000])
def test_a_label_in_a_tar_file_that_is_none_names_its_key(tmp_path, label):
    write_tar(tmp_path / "train-0.tar", {"a": 0, "b": 1})
    add_to_tar(tmp_path / "train-0.tar", **{"sub/key7.cls": label, "sub/key7.jpg": b"x"})
    with pytest.raises(DataError, match=r"train-0.tar: sub/key7.cls holds .* expected a label"):
        open_layout("folder", tmp_path)


def test_tar_files_that_end_early_or_go_on_are_errors(tmp_path):
    path = tmp_path / "train-0.tar"
    write_tar(path, {f"a{i}": i % 2 for i in range(6)})
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 * 4 * 3])  # between two members, where Python's tarfile just ends
    with pytest.raises(DataError, match="is truncated: it has no end mark"):
        open_layout("folder", tmp_path)
    path.write_bytes(whole[: 512 * 8] + b"\7" * 512 + whole[512 * 9 :])
    with pytest.raises(DataError, match="is damaged at byte 4,096"):
        open_layout("folder", tmp_path)
    path.write_bytes(whole + whole)
    with pytest.raises(DataError, match="continues after its end mark"):
        open_layout("folder", tmp_path)


@pytest.mark.parametrize("kind", ["tar", "parquet", "tfrecord", "array_record"])
def test_many_shards_need_few_open_files(tmp_path, kind):
    if kind == "tar":
        for i in range(150):
            write_tar(tmp_path / f"train-{i:03d}.tar", {f"a{i}": i % 2})
    elif kind == "parquet":
        for i in range(150):
            parquet.write_table(table([i % 2]), tmp_path / f"train-{i:03d}.parquet")
    else:
        tiny_tfds.write_tiny("dtd", tmp_path, kind, {"train": 150, "validation": 150, "test": 150}, shards=150)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, hard))
    try:
        source = open_layout("folder", tmp_path) if kind in ("tar", "parquet") else open_tiny_dtd(tmp_path)
        for split in source.splits.values():
            for i in range(len(split)):
                assert split.read(i)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(map(len, source.splits.values())) >= 150


def open_tiny_dtd(root):
    from src.data.sources.tfds import TFDS, fixed

    layout = TFDS("dtd", "3.*.*", fixed(train="train", val="validation", test="test"))
    return layout.open(layout.find(root), Wanted())


def test_an_image_that_is_stored_by_its_path_alone_is_an_error(tmp_path):
    images = [{"bytes": None, "path": "/etc/hostname"}] * 4
    parquet.write_table(pyarrow.table({"image": images, "label": [0, 1] * 2}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"column image holds|no image bytes"):
        open_layout("folder", tmp_path).splits["train"].read(0)
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
