"""Preparing, checking and converting data sets: real formats, tiny data, no TensorFlow."""

import os
import signal
import stat
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from paths import ROOT
from PIL import Image
from programs import run_program
from random_splits import image, make_split

from src.data.sources.base import DataError, Source, Split, Wanted
from src.data.sources.tfds import TFDS, fixed
from src.data.sources.vtab import VTABFolder
from src.tools.prepare import convert
from src.tools.prepare.__main__ import main
from src.tools.prepare.convert import convert_records, folder_splits, open_info, shards_of, write_folder, write_tfds
from src.tools.prepare.recipes import RECIPES, explain_failure
from src.tools.prepare.tasks import vtab_tasks
from src.tools.prepare.verify import CHECKSUMS, check_labels, check_records, was_checked
from src.utils.io import read_json, write_json


def make_source(arrays: bool = False, train: int = 30) -> Source:
    parts = {"train": make_split(train, 0, arrays=arrays), "val": make_split(7, 1000), "test": make_split(9, 2000)}
    return Source(list("abcde"), parts, "made up")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(convert, "PER_SHARD", 8)


def make_tfds(place: Path, file_format: str = "tfrecord", source: Source | None = None) -> Path:
    splits = folder_splits(source or make_source())
    write_tfds(splits, place, place.parent.name, 5, file_format, "made up")
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_split(one: Split, other: Split) -> bool:
    return one.labels.tolist() == other.labels.tolist() and all(one.read(i) == other.read(i) for i in range(len(one)))


# ---- tfrecord and ArrayRecord ----


def test_records_survive_the_way_to_array_record_and_back(tmp_path):
    here = make_tfds(tmp_path / "a" / "vtab_x" / "1.0.0")
    convert_records(here, tmp_path / "b" / "vtab_x" / "1.0.0", "array_record")
    info = convert_records(tmp_path / "b" / "vtab_x" / "1.0.0", tmp_path / "c" / "vtab_x" / "1.0.0", "tfrecord")
    assert [len(info.splits[name].shard_lengths) for name in ("train800", "val200", "test")] == [4, 1, 2]
    first, last = contents(here), contents(tmp_path / "c" / "vtab_x" / "1.0.0")
    assert first.keys() == last.keys()
    assert all(first[name] == last[name] for name in first if "tfrecord" in name)
    fast = tfds.builder_from_directory(tmp_path / "b" / "vtab_x" / "1.0.0")
    rows = fast.as_data_source(split="train800")
    assert [int(rows[i]["label"]) for i in range(30)] == [i % 5 for i in range(30)]
    assert check_records(here).checksums == check_records(Path(fast.data_dir)).checksums


def test_converting_to_the_same_format_or_over_something_is_refused(tmp_path):
    here = make_tfds(tmp_path / "vtab_x" / "1.0.0")
    with pytest.raises(DataError, match="already in format tfrecord"):
        convert_records(here, tmp_path / "b", "tfrecord")
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError, match="not overwritten"):
        convert_records(here, tmp_path / "b", "array_record")
    with pytest.raises(DataError, match="no dataset_info"):
        convert_records(tmp_path, tmp_path / "c", "array_record")


def test_directories_of_older_tfds_convert(tmp_path):
    here = make_tfds(tmp_path / "vtab_x" / "1.0.0")
    facts = read_json(here / "dataset_info.json")
    del facts["fileFormat"]
    for split in facts["splits"]:
        del split["filepathTemplate"]
    write_json(here / "dataset_info.json", facts)
    convert_records(here, tmp_path / "b" / "vtab_x" / "1.0.0", "array_record")
    again = convert_records(tmp_path / "b" / "vtab_x" / "1.0.0", tmp_path / "c", "tfrecord")
    assert again.splits["train800"].num_examples == 30


def test_a_split_without_images_converts(tmp_path):
    source = make_source()
    source.splits["val"] = make_split(0)
    here = make_tfds(tmp_path / "vtab_x" / "1.0.0", source=source)
    assert convert_records(here, tmp_path / "b", "array_record").splits["val200"].num_examples == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from src.tools.prepare import convert
written, update = 0, convert.counted
def counted(records, bar):
    global written
    for record in update(records, bar):
        written += 1
        if written == 20:  # in the middle of the fourth shard
            os.kill(os.getpid(), signal.SIGKILL)
        yield record
convert.counted = counted
convert.convert_records(Path(sys.argv[1]), Path(sys.argv[2]), "array_record")
"""


def test_a_killed_conversion_leaves_nothing_finished_and_goes_on(tmp_path):
    here, place = make_tfds(tmp_path / "vtab_x" / "1.0.0"), tmp_path / "b" / "1.0.0"
    ended = run_program("-c", KILLED, here, place)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not place.exists()
    done = sorted((tmp_path / "b" / ".1.0.0.partial").glob("vtab_x-*"))
    assert len(done) == 3
    times = [path.stat().st_mtime_ns for path in done]
    convert_records(here, place, "array_record")
    assert [(place / path.name).stat().st_mtime_ns for path in done] == times
    assert [path.name for path in tmp_path.joinpath("b").iterdir()] == ["1.0.0"]
    assert not list(place.glob(".*"))
    assert check_records(place).checksums == check_records(here).checksums


def test_remains_of_another_conversion_are_not_used(tmp_path):
    here, place = make_tfds(tmp_path / "vtab_x" / "1.0.0"), tmp_path / "b"
    other = make_tfds(tmp_path / "vtab_y" / "1.0.0", source=make_source(train=31))
    stop_after(1, convert_records, other, place, "array_record")
    assert (tmp_path / ".b.partial").is_dir()
    convert_records(here, place, "array_record")
    assert not list(place.glob("vtab_y*"))


def stop_after(shards: int, function, *arguments) -> None:
    """Call a function that is interrupted when it has written that many shards."""
    written = []

    def write(self, records, original=convert.Shard.write):
        if len(written) == shards:
            raise KeyboardInterrupt
        original(self, records)
        written.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert.Shard, "write", write)
        with pytest.raises(KeyboardInterrupt):
            function(*arguments)


def test_a_shard_that_went_bad_before_the_restart_is_found_and_written_again(tmp_path):
    here, place = make_tfds(tmp_path / "vtab_x" / "1.0.0"), tmp_path / "b"
    stop_after(2, convert_records, here, place, "array_record")
    first, second = sorted((tmp_path / ".b.partial").glob("vtab_x-*"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match="does not read back"):
        convert_records(here, place, "array_record")
    assert not place.exists()
    convert_records(here, place, "array_record")
    assert check_records(place).checksums == check_records(here).checksums


# ---- damage ----


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("how", ["flipped", "cut off", "missing", "exchanged"])
def test_damage_is_found(tmp_path, file_format, how):
    here = make_tfds(tmp_path / "vtab_x" / "1.0.0", file_format)
    assert not check_records(here).damage
    assert was_checked(here)
    shards = [shard.path for shard in shards_of(open_info(here))]
    if how == "flipped":
        flip(shards[1], 0.5)
    elif how == "cut off":
        shards[1].write_bytes(shards[1].read_bytes()[:-200])
    elif how == "missing":
        shards[1].unlink()
    else:  # whole, but not what was there
        content = [shard.path.read_bytes() for shard in shards_of(open_info(here)) if shard.split == "train800"]
        names = [shard.path for shard in shards_of(open_info(here)) if shard.split == "train800"]
        names[0].write_bytes(content[1])
        names[1].write_bytes(content[0])
    findings = check_records(here)
    assert len(findings.damage) == 1
    if how == "exchanged":
        assert CHECKSUMS in findings.damage[0]
    else:
        assert str(shards[1]) in findings.damage[0]
        assert not was_checked(here) or how == "flipped"
    if how != "exchanged":
        other = {"tfrecord": "array_record", "array_record": "tfrecord"}[file_format]
        with pytest.raises(DataError, match=shards[1].name):
            convert_records(here, tmp_path / "b", other)
        assert not (tmp_path / "b").exists()


def test_labels_are_counted_and_checked():
    source = make_source()
    findings = check_labels(source, 6)
    assert not findings.damage
    assert findings.notes[0] == "train800: 30 images, 6 to 6 per class (6 6 6 6 6 0); 1 of 6 classes have none: 5"
    assert check_labels(source, 4).damage[0] == "train800 has labels 0..4, not 0..3"


# ---- VTAB folders ----


def test_tfds_becomes_a_folder_and_a_tfds_directory_again(tmp_path):
    layout = TFDS("vtab_cifar", "1.*.*", fixed(train="train800", val="val200", test="test"))
    make_tfds(tmp_path / "vtab_cifar" / "1.0.0", "array_record")
    source = layout.open(layout.find(tmp_path), Wanted())
    write_folder(source, tmp_path / "cifar")
    lines = (tmp_path / "cifar" / "val200.txt").read_text().splitlines()
    assert lines[:2] == ["images/val200/000000.png 0", "images/val200/000001.jpg 1"]
    both = (tmp_path / "cifar" / "train800val200.txt").read_text().splitlines()
    assert both == (tmp_path / "cifar" / "train800.txt").read_text().splitlines() + lines
    folder = VTABFolder("cifar").open(VTABFolder("cifar").find(tmp_path), Wanted())
    assert folder.version == f"VTAB-1k folder cifar, PNG, original files of {source.version}"
    assert folder.notes == source.notes
    again = tmp_path / "again" / "vtab_cifar" / "1.0.0"
    write_tfds(folder_splits(folder), again, "vtab_cifar", 5, "tfrecord", folder.version)
    last = layout.open(layout.find(tmp_path / "again"), Wanted())
    for name, split in make_source().splits.items():
        assert same_split(split, source.splits[name])
        assert same_split(split, folder.splits[name])
        assert same_split(split, last.splits[name])
    assert last.splits["val"].keys[1].endswith("images/val200/000001.jpg")
    assert "tensorflow" not in sys.modules


def test_arrays_become_png_files_with_the_same_pixels(tmp_path):
    source = make_source(arrays=True)
    write_folder(source, tmp_path / "dsprites_loc")
    for i in range(5):
        with Image.open(tmp_path / f"dsprites_loc/images/train800/{i:06d}.png") as file:
            np.testing.assert_array_equal(np.asarray(file)[..., None], source.splits["train"].read(i))


def test_an_interrupted_folder_goes_on_without_writing_files_again(tmp_path):
    source = make_source()
    read = source.splits["train"].read

    def fails(i: int):
        if i == 20:
            raise OSError("the disk went away")
        return read(i)

    source.splits["train"].read = fails
    with pytest.raises(OSError, match="went away"):
        write_folder(source, tmp_path / "dtd")
    assert not (tmp_path / "dtd").exists()
    files = sorted((tmp_path / ".dtd.partial").rglob("*.png"))
    files[3].write_bytes(b"half a file")
    times = [path.stat().st_mtime_ns for path in files]
    source.splits["train"].read = read
    write_folder(source, tmp_path / "dtd")
    now = [(tmp_path / "dtd" / "images" / "train800" / path.name).stat().st_mtime_ns for path in files]
    assert [i for i in range(len(files)) if now[i] != times[i]] == [3]
    assert same_split(VTABFolder("dtd").open(tmp_path / "dtd", Wanted()).splits["train"], source.splits["train"])


def test_an_interrupted_tfds_directory_goes_on(tmp_path):
    place = tmp_path / "vtab_x" / "1.0.0"
    stop_after(2, make_tfds, place)
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "vtab_x" / ".1.0.0.partial").glob("vtab_x-*")}
    assert len(done) == 2
    assert not place.exists()
    make_tfds(place)
    assert {name: (place / name).stat().st_mtime_ns for name in done} == done


def test_what_cannot_be_converted_says_why(tmp_path):
    source = make_source()
    source.splits["val"].read = lambda i: b"<html>404"
    with pytest.raises(DataError, match=r"1000/0.img is not an image of a known kind"):
        write_folder(source, tmp_path / "a")
    with pytest.raises(DataError, match=r"labels outside 0\.\.3"):
        write_tfds(folder_splits(make_source()), tmp_path / "vtab_x" / "1.0.0", "vtab_x", 4, "tfrecord", "made up")
    del source.splits["test"]
    with pytest.raises(DataError, match="has no test images"):
        write_folder(source, tmp_path / "b")


def test_folders_are_verified_where_there_is_no_tfds_directory(tmp_path, capsys):
    write_folder(make_source(), tmp_path / "cifar")
    assert main(["cifar100", "--data-dir", str(tmp_path), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "95 of 100 classes have none" in out
    assert "ready  cifar  train800 30, val200 7, test 9" in out
    path = tmp_path / "cifar" / "images" / "test" / "000003.jpg"
    path.write_bytes(path.read_bytes()[:200])
    assert main(["cifar100", "--data-dir", str(tmp_path), "--verify"]) == 1
    assert "DAMAGED: images/test/000003.jpg cannot be decoded" in capsys.readouterr().out
    path.unlink()
    assert main(["cifar100", "--data-dir", str(tmp_path), "--verify"]) == 1
    assert "1 of the 9 images listed" in capsys.readouterr().out


# ---- the command line ----


def program(path: Path, body: str) -> str:
    """A program that stands for another environment's interpreter: it is called with the script and its arguments."""
    path.write_text(body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def fake_python(tmp_path: Path, body: str) -> str:
    """The same in Python; every call adds a line to ``calls``."""
    ours = [str(ROOT), str(ROOT / "tests")]
    start = f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\nsys.path[:0] = {ours!r}\n"
    log = f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv[3:]) + chr(10))\n"
    return program(tmp_path / "fake-python", start + log + body)


PREPARES_DTD = """
from src.tools.prepare.convert import write_tfds
from random_splits import make_split
print("TensorFlow 0.0, a stand-in", flush=True)
builder, data_dir, file_format = sys.argv[3:6]
splits = {name: make_split(count, classes=47) for name, count in dict(train=810, validation=201, test=50).items()}
write_tfds(splits, Path(data_dir) / builder / "3.0.1", builder, 47, file_format, "made up")
"""


def test_what_is_not_there_is_prepared_once_and_checked(tmp_path, capsys):
    data = ["--data-dir", str(tmp_path / "data")]
    assert main(["dtd", *data, "--python", fake_python(tmp_path, PREPARES_DTD)]) == 0
    out, err = capsys.readouterr()
    assert "a stand-in" in err
    assert "  train has 810 images, 1,880 are published" in out
    assert "train800: 800 images, 17 to 18 per class" in out
    assert (tmp_path / "data" / "dtd" / "3.0.1" / CHECKSUMS).is_file()
    assert "prepared  dtd/3.0.1" in out
    assert out.endswith("1 of 1 tasks ready\n")
    assert main(["dtd", *data, "--python", "/bin/false"]) == 0  # not run
    assert "ready  dtd/3.0.1" in capsys.readouterr().out
    assert main(["dtd", "cifar100", *data, "--verify"]) == 1
    out = capsys.readouterr().out
    assert "BLAKE2b" in out
    assert "cifar100  missing" in out
    flip(next((tmp_path / "data" / "dtd" / "3.0.1").glob("*test*")), 0.5)
    assert main(["dtd", *data, "--verify"]) == 1
    out = capsys.readouterr().out
    assert "DAMAGED" in out
    assert "dtd   damaged  dtd/3.0.1" in out
    assert (tmp_path / "calls").read_text() == f"dtd {tmp_path / 'data'} array_record\n"


def test_labels_out_of_range_are_found_by_every_call(tmp_path, capsys):
    body = PREPARES_DTD.replace("classes=47", "classes=50").replace("builder, 47,", "builder, 50,")
    for _ in range(2):
        assert main(["dtd", "--data-dir", str(tmp_path / "data"), "--python", fake_python(tmp_path, body)]) == 1
        assert "DAMAGED: train800 has labels 0..49, not 0..46" in capsys.readouterr().out


def test_without_tensorflow_the_message_says_how_to_get_it(tmp_path, capsys):
    bare = program(tmp_path / "bare-python", f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    assert main(["cifar100", "--data-dir", str(tmp_path / "data"), "--python", bare]) == 1
    err = capsys.readouterr().err
    assert f"python -m venv prepare-env && prepare-env/bin/pip install '{ROOT}[prepare]'" in err
    assert "--python prepare-env/bin/python" in err
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(requirement.startswith("tensorflow-cpu") for requirement in extras["prepare"])


FAILURES = {
    "eurosat": (
        "requests.exceptions.SSLError: HTTPSConnectionPool(host='madm.dfki.de'): certificate has expired",
        "torchvision.datasets.EuroSAT",
    ),
    "dtd": ("NonMatchingChecksumError: Artifact https://a.b/c.tgz, has wrong checksum", "newer\ntensorflow-datasets"),
    "caltech101": ("DownloadError: Failed to get url https://a.b/c.zip. HTTP code: 404.", "no longer at this address"),
    "svhn": ("ModuleNotFoundError: No module named 'importlib_resources'", "pip install 'vitune[prepare]'"),
    "kitti": (
        "AssertionError: Dataset kitti cannot be loaded at version 3.2.0, only: 3.3.0.",
        "the one that 'vitune[prepare]' requires",
    ),
    "clevr-count": ("OSError: [Errno 28] No space left on device", "The disk is full"),
    "flowers": ("requests.exceptions.ConnectionError: Max retries exceeded", "Run the same command again"),
    "dmlab": ("Segmentation fault", "the end of its output"),
}


def test_failures_are_explained_and_the_rest_is_still_tried(tmp_path, capsys):
    said = {RECIPES_OF[name]: message for name, (message, _) in FAILURES.items()}
    remains = tmp_path / "data" / "dtd" / "incomplete.AB12_3.0.1"
    remains.mkdir(parents=True)
    python = fake_python(tmp_path, f"print({said!r}[sys.argv[3]], file=sys.stderr)\nsys.exit(1)\n")
    data = tmp_path / "data"
    assert main([*FAILURES, "--data-dir", str(data), "--python", python]) == 1
    out, err = capsys.readouterr()
    assert f"{remains} is left from a killed preparation" in out
    for name, (message, meaning) in FAILURES.items():
        assert message in err
        assert meaning in err
        assert any(line.split()[:2] == [name, "failed"] for line in out.splitlines())
    assert f"Downloads are kept in {data / 'downloads'}" in err


RECIPES_OF = {task.name: task.layouts[0].builder for task in vtab_tasks(["vtab"])}


def test_tasks_that_share_a_data_set_prepare_it_once(tmp_path, capsys):
    python = fake_python(tmp_path, "sys.exit(1)\n")
    names = ["dsprites_loc", "dsprites_ori", "smallnorb_azi", 'vtab-smallnorb(predicted_attribute="label_elevation")']
    assert main([*names, "--data-dir", str(tmp_path / "d"), "--python", python, "--format", "tfrecord"]) == 1
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"dsprites {tmp_path / 'd'} tfrecord", f"smallnorb {tmp_path / 'd'} tfrecord"]
    assert "0 of 4 tasks ready" in capsys.readouterr().out


def test_what_has_to_be_fetched_by_hand_is_said_before_anything_starts(tmp_path, capsys):
    python, by_hand = fake_python(tmp_path, "sys.exit(1)\n"), tmp_path / "by hand"
    (by_hand / "NWPU-RESISC45" / "airplane").mkdir(parents=True)
    (by_hand / "NWPU-RESISC45" / "airplane" / "airplane_001.jpg").touch()
    (by_hand / "SUN397.tar.gz").touch()
    tasks = ["sun397", "resisc45", "retino", "--data-dir", str(tmp_path / "d"), "--python", python]
    assert main(tasks) == 1
    assert capsys.readouterr().out.count("no --manual-dir was given") == 3
    assert main([*tasks, "--manual-dir", str(by_hand)]) == 1
    out = capsys.readouterr().out
    assert "NWPU-RESISC45/*/*.jpg: 1 of 31,500 files" in out
    assert "SUN397.tar.gz has 0 bytes instead of 39,077,296,924" in out
    assert f"{by_hand / 'Partitions.zip'} is missing" in out
    assert "train/*.jpeg: 0 of 35,126 files" in out
    assert "kaggle.com" in out
    assert not (tmp_path / "calls").exists()


def test_files_fetched_by_hand_go_to_tfds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("src.tools.prepare.recipes.Needed.missing", lambda self, manual_dir: "")
    python = fake_python(tmp_path, "sys.exit(1)\n")
    data = str(tmp_path / "data")
    assert main(["resisc45", "--data-dir", data, "--manual-dir", str(tmp_path), "--python", python]) == 1
    assert (tmp_path / "calls").read_text() == f"resisc45 {data} array_record {tmp_path}\n"


def test_every_task_has_a_recipe_and_a_place_in_the_list(capsys):
    assert set(RECIPES_OF.values()) == set(RECIPES)
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{out}" for name in RECIPES_OF)
    assert "StanfordCars" in out
    assert "HTTP" not in explain_failure("sun397/tfds", "Failed to get url x. HTTP code: 404")


def test_help_shows_commands(capsys):
    for arguments in (["--help"], ["convert", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        assert "vitune prepare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar1000", "--data-dir", "d"], "cifar100"),
        (["convert", "a", "b", "--to", "noah", "--task", "CUB"], "CUB: only VTAB-1k's tasks"),
        (["--data-dir", "d"], "TASK"),
        (["cifar100", "--data-dir", "d", "--python", "no-such-python"], "no-such-python"),
        (["convert", "a", "b", "--to", "noah"], "--task"),
    ],
)
def test_wrong_commands_end_with_status_2(arguments, message, capsys):
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_tasks_are_converted_from_one_data_folder_into_another(tmp_path, capsys):
    parts = dict(train=make_split(800, classes=47), validation=make_split(200, classes=47), test=make_split(3))
    write_tfds(parts, tmp_path / "data" / "dtd" / "3.0.1", "dtd", 47, "tfrecord", "made up")
    data, fast, noah, back = (str(tmp_path / name) for name in ("data", "fast", "noah", "back"))
    assert main(["convert", data, fast, "--to", "array_record", "--task", "dtd"]) == 0
    assert main(["convert", fast, noah, "--to", "noah", "--task", "dtd"]) == 0
    assert main(["convert", noah, back, "--to", "tfds", "--task", "dtd"]) == 0
    assert main(["convert", noah, back, "--to", "tfds", "--task", "dtd"]) == 0
    out = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert out[0] == f"{fast}/dtd/3.0.1: array_record, train 800, validation 200, test 3"
    assert out[2] == f"{back}/vtab_dtd/1.0.0: array_record, train800 800, val200 200, test 3"
    assert out[3] == f"{back}/vtab_dtd/1.0.0: there already, left as it is"
    assert main(["convert", data, fast, "--to", "array_record", "--task", "svhn"]) == 1
    assert "has no finished version of svhn_cropped" in capsys.readouterr().err
    assert os.listdir(tmp_path / "noah") == ["dtd"]


# ---- what TFDS does not prepare ----


def test_a_task_that_is_not_there_says_how_to_get_it(tmp_path, capsys):
    assert main(["CUB", "fewshot-pets", "--data-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "fgvc: train.json, val.json and test.json" in out
    assert "lists: oxford-pets/annotations/ with NOAH's lists" in out
    assert "0 of 2 tasks ready" in out


def test_torchvision_downloads_what_it_can(tmp_path, capsys, monkeypatch):
    from torchvision.datasets import STL10

    def download(self):
        here = Path(self.root) / "stl10_binary"
        here.mkdir(exist_ok=True)
        for split, count in (("train", 20), ("test", 10)):
            (here / f"{split}_X.bin").write_bytes(bytes(range(256)) * (count * 3 * 96 * 96 // 256))
            (here / f"{split}_y.bin").write_bytes(bytes(range(1, 11)) * (count // 10))
        (here / "class_names.txt").write_text("\n".join(f"class{i}" for i in range(10)))

    monkeypatch.setattr(STL10, "download", download)
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    assert main(["stl10", "--data-dir", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "prepared" in out
    assert "train 18, test 10, val 2" in out
    assert main(["stl10", "--data-dir", str(tmp_path / "data")]) == 0
    assert "downloading" not in capsys.readouterr().out


def test_a_failed_download_ends_with_its_cause(tmp_path, capsys, monkeypatch):
    from torchvision.datasets import Food101

    def fail(self):
        raise OSError("Name or service not known")

    monkeypatch.setattr(Food101, "_download", fail)
    assert main(["food101", "cars-full", "--data-dir", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "Food101 could not be downloaded: Name or service not known" in printed.err
    assert "its host is gone" in printed.out


def test_a_kept_task_says_that_it_is_ready(tmp_path, capsys):
    (tmp_path / "photos" / "train" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "train" / "b").mkdir()
    for name in "ab":
        for i in range(5):
            (tmp_path / "photos" / "train" / name / f"{i}.png").write_bytes(image(i, "PNG"))
    assert main(["folder", "--data-dir", str(tmp_path / "photos")]) == 0
    assert "train 8, val 2" in capsys.readouterr().out
