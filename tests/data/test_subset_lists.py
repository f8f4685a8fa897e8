"""Lists that choose images of a data set: indices in text and .npy files, and names in other people's lists."""

import numpy as np
import pytest
import tiny_tfds
from conftest import make_cfg
from image_sets import write_cifar
from PIL import Image

from src.data.opened import open_data
from src.data.sources.base import DataError, Wanted
from src.data.tasks import TASKS

CLASSES = [f"class{i:02d}" for i in range(45)]


def opened(name, root, kind, **lists):
    layout = next(layout for layout in TASKS[name].layouts if layout.kind == kind)
    return layout.open(layout.find(root), Wanted(split_seed=lists.pop("seed", 0), lists=lists))


@pytest.fixture
def resisc(tmp_path):
    for name in CLASSES:
        (tmp_path / "NWPU-RESISC45" / name).mkdir(parents=True)
        for i in range(1, 6):
            Image.new("RGB", (4, 4)).save(tmp_path / "NWPU-RESISC45" / name / f"{name}_{i:03d}.jpg")
    return tmp_path


def theirs(numbers) -> str:
    """A list over all classes that counts them backwards, as nobody here does."""
    lines = [f"{name}/{name}_{i:03d}.jpg {44 - label}" for i in numbers for label, name in enumerate(CLASSES)]
    return "\n".join(lines) + "\n"


def write_lists(folder, **numbers) -> dict[str, str]:
    for name, some in numbers.items():
        (folder / f"{name}.txt").write_text(theirs(some))
    return {name: str(folder / f"{name}.txt") for name in numbers}


def names_of(split) -> set[str]:
    return {key.rsplit("/", 1)[-1] for key in split.keys}


def expected(numbers) -> set[str]:
    return {f"{name}_{i:03d}.jpg" for name in CLASSES for i in numbers}


def test_lists_by_name_choose_from_class_folders(resisc):
    lists = write_lists(resisc, train=(5, 1), val=(2,), test=(3,))
    splits = opened("resisc45-225", resisc, "folder", **lists).splits
    assert {name: names_of(split) for name, split in splits.items()} == {
        "train": expected((1, 5)),
        "val": expected((2,)),
        "test": expected((3,)),
    }
    for split in splits.values():  # labels are the data set's, whatever the list calls them
        assert [CLASSES[label] for label in split.labels] == [key.split("/")[0] for key in split.keys]
    assert splits["train"].keys[0] == "class00/class00_005.jpg"  # the list's order


def test_lists_by_name_choose_from_a_tfds_directory(tmp_path, monkeypatch):
    def examples(name, split, count, features):
        for i in range(1, 6):
            for label, name in enumerate(features["label"].names):
                key = f"{name}_{i:03d}.jpg"
                yield key, {"image": tiny_tfds._encoded(64, 64, 3, False, i), "label": label, "filename": key}

    monkeypatch.setattr(tiny_tfds, "examples", examples)
    folder = tiny_tfds.write_tiny("resisc45", tmp_path, counts={"train": 225})
    names = [line.strip() for line in (folder / "label.labels.txt").read_text().splitlines()]
    for split, i in (("train", 1), ("val", 2), ("test", 3)):
        lines = [f"{name}/{name}_{i:03d}.jpg {44 - label}\n" for label, name in enumerate(names)]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("train", "val", "test")}
    splits = opened("resisc45-225", tmp_path, "tfds", **lists).splits
    assert splits["train"].keys == [f"resisc45 train/{name}_001.jpg" for name in names]
    assert splits["test"].keys == [f"resisc45 train/{name}_003.jpg" for name in names]
    assert splits["val"].labels.tolist() == list(range(45))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("class00/class00_777.jpg 44", r"1 images of .* cannot be found by name .*class00_777.jpg is not an image"),
        ("class01/class00_001.jpg 44", r"class01/class00_001.jpg is not an image"),
        ("class01/class01_002.jpg 44", r"label 44 stands for both class00 and class01"),
        ("class00/class00_001.jpg 44", r"names 1 images more than once"),
        ("class00/class00_003.jpg x", r"line 46: expected '<image> <label>'"),
    ],
)
def test_an_entry_that_does_not_fit_is_an_error(resisc, line, message):
    (resisc / "odd.txt").write_text(theirs((1,)) + line)
    with pytest.raises(DataError, match=message):
        opened("resisc45-225", resisc, "folder", train=str(resisc / "odd.txt"))


def test_a_list_may_not_take_test_images_unless_it_says_what_is_tested(resisc):
    lists = write_lists(resisc, train=(1, 2, 3, 4, 5))
    with pytest.raises(DataError, match=r"45 images of .*are also in the data set's own test images: set DATA"):
        opened("resisc45-225", resisc, "folder", **lists)
    lists = write_lists(resisc, train=(1, 2), val=(2, 3), test=(4,))
    with pytest.raises(DataError, match=r"45 images of .*train.txt \(DATA.TRAIN_LIST\) are also in .*val.txt"):
        opened("resisc45-225", resisc, "folder", **lists)


def test_what_a_val_list_names_does_not_train(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (4, 4)).save(tmp_path / split / name / f"{i}.png")
    (tmp_path / "val.txt").write_text("train/a/2.png 0\ntrain/b/0.png 1\n")
    cfg = make_cfg(
        DATA__NAME="folder", DATA__DATAPATH=str(tmp_path), DATA__FEATURE="vit_micro_glyphs", DATA__VAL_LIST="val.txt"
    )
    data = open_data(cfg)
    assert data.splits["val"].keys == ["train/a/2.png", "train/b/0.png"]
    assert data.splits["train"].keys == [f"train/{n}.png" for n in ("a/0", "a/1", "a/3", "b/1", "b/2", "b/3")]


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "train_list", [("train", None)])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "test_list", [("test", None)])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_load_meta", lambda self: setattr(self, "classes", CLASSES[:3]))
    write_cifar(tmp_path, "train", "fine_labels", 4, 3)
    folder = tmp_path / "cifar-100-python"
    (folder / "test").write_bytes((folder / "train").read_bytes())
    return tmp_path


def test_index_files_of_the_study_choose_cifars_images(cifar):
    np.save(cifar / "train.npy", np.array([11, 0, 6, 3]))
    np.save(cifar / "val.npy", np.array([[1], [2], [7]], np.uint8))  # three splits in rows
    np.save(cifar / "test.npy", np.arange(5))
    lists = {name: str(cifar / f"{name}.npy") for name in ("train", "val", "test")}
    splits = opened("cifar100-500", cifar, "torchvision", seed=2, **lists).splits
    assert splits["train"].keys == ["train/11", "train/0", "train/6", "train/3"]
    assert splits["train"].labels.tolist() == [2, 0, 1, 0]
    assert splits["val"].keys == ["train/7"]
    assert splits["test"].keys == [f"test/{i}" for i in range(5)]
    with pytest.raises(DataError, match=r"val.npy has 3 rows \(one per split\), but DATA.SPLIT_SEED is 3"):
        opened("cifar100-500", cifar, "torchvision", seed=3, **lists)


def test_indices_count_cifar_as_it_was_published_also_where_tfds_shuffled_it(tmp_path):
    folder = tiny_tfds.write_tiny("cifar100", tmp_path, counts={"train": 40, "test": 10})
    (tmp_path / "some.txt").write_text("7\n0\n39\n")
    splits = opened("cifar100-500", tmp_path, "tfds", train=str(tmp_path / "some.txt")).splits
    assert [key.split("/")[-1] for key in splits["train"].keys] == ["train_00007", "train_00000", "train_00039"]
    assert folder.is_dir()


BAD_ARRAYS = {
    "floats": (np.array([0.0, 1.0]), "expected integers"),
    "three dimensions": (np.zeros((1, 1, 1), int), "expected integers"),
    "a scalar": (np.array(3), "expected integers"),
    "nothing": (np.array([], int), "is empty"),
    "negative": (np.array([3, -1]), "expected indices below 12, found -1"),
    "too large": (np.array([3, 12]), "expected indices below 12, found 12"),
    "above int64": (np.array([2**64 - 1], np.uint64), "expected indices below 12"),
    "twice": (np.array([3, 4, 3]), "names 1 images more than once"),
    "objects": (np.array([{}, {}], object), "is not an .npy file of indices"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_an_array_that_is_no_list_of_indices_is_an_error(cifar, case):
    array, message = BAD_ARRAYS[case]
    np.save(cifar / "odd.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        opened("cifar100-500", cifar, "torchvision", train=str(cifar / "odd.npy"))


def test_an_array_that_promises_more_than_it_holds_takes_no_memory(cifar):
    with open(cifar / "odd.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
        file.write(bytes(80))
    with pytest.raises(DataError, match=r"is not an .npy file of indices"):
        opened("cifar100-500", cifar, "torchvision", train=str(cifar / "odd.npy"))
