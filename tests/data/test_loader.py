"""The cache of decoded images, and batches from it or from files: the same whatever is kept, and by whom."""

import io
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.augment import random_crop
from src.data.cache import Cache, duplicates
from src.data.loader import Images, Loader, split_batches
from src.data.pixels import Pixels
from src.data.sources.base import DataError, FileSplit, Split

CPU = torch.device("cpu")


def make_pixels(**parts) -> Pixels:
    return Pixels(**(dict(size=(8, 8), augment="none", mean=(0.5,) * 3, std=(0.5,) * 3) | parts))


def make_split(count=10, same_size=True, seed=0) -> Split:
    rng = np.random.RandomState(seed)
    shapes = [(12, 16) if same_size else (12 + i % 3, 16 + i % 2) for i in range(count)]
    arrays = [rng.randint(0, 255, (*shape, 3), dtype=np.uint8) for shape in shapes]
    return Split(arrays.__getitem__, np.arange(count), [str(i) for i in range(count)], lambda i: f"arrays {seed}")


def open_split(folder, split, pixels, train=True, keep=True, limit=1e9, workers=2):
    return Cache(Path(folder), limit, workers).open(split, pixels, train, "test images", keep)


def make_loader(folder, split=None, batch_size=4, seed=0, keep=True, train=True, place="disk", workers=2, **parts):
    pixels = make_pixels(**parts)
    known = open_split(folder, split or make_split(), pixels, train, keep, workers=workers)
    assert (known.store is not None) == keep
    images = Images(known, pixels, train, workers, place, CPU)
    return Loader(images, batch_size, CPU, seed, num_classes=10)


AUGMENTATIONS = {
    "none": {},
    "flip": dict(augment="flip"),
    "crop_flip": dict(augment="crop_flip", resize="crop"),
    "rrc_flip": dict(augment="rrc_flip"),
    "rrc_flips": dict(augment="rrc_flips", interpolation="bicubic"),
    "randaugment": dict(auto_augment="randaugment"),
    "trivialaugment": dict(auto_augment="trivialaugment", augment="flip"),
    "timm": dict(auto_augment="rand-m9-mstd0.5-inc1", augment="rrc_flip"),
    "augmix": dict(auto_augment="augmix-m5-w2-d2"),
    "v0": dict(auto_augment="v0"),
    "3a": dict(auto_augment="3a", color_jitter=0.3),
    "erasing": dict(random_erasing=0.9),
    "mixup": dict(mixup=0.8),
    "mixed": dict(mixup=0.8, cutmix=1.0, augment="crop_flip", resize="crop"),
    "float32": dict(dtype="float32", augment="crop_flip", resize="crop", auto_augment="randaugment"),
    "native": dict(resize="native", patch=(4, 2), augment="flip"),
    "native, cropped": dict(resize="native", patch=(2, 2), augment="crop_flip", dtype="float32"),
    "native, parts": dict(resize="native", patch=(4, 4), augment="rrc_flip", auto_augment="randaugment"),
}


def epoch_images(loader: Loader, epoch: int) -> torch.Tensor:
    return torch.cat([images for images, _ in loader.epoch(epoch)])


# --- batches


def test_batches_go_through_everything_once(tmp_path):
    loader = make_loader(tmp_path)
    assert torch.cat([labels for _, labels in loader]).tolist() == list(range(10))
    assert len(loader) == 3
    shuffled = torch.cat([labels for _, labels in loader.epoch(0)])
    assert sorted(shuffled.tolist()) == list(range(10))
    assert shuffled.tolist() != list(range(10))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_epoch_is_a_function_of_seed_and_number(tmp_path, name):
    parts = AUGMENTATIONS[name]
    loader = make_loader(tmp_path, **parts)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = epoch_images(loader, 3)
    assert torch.equal(torch.get_rng_state(), before), "augmentation drew from the generator of dropout"
    assert first.shape[1:] == make_pixels(**parts).noise(1).shape[1:]
    assert first.isfinite().all()
    torch.manual_seed(6)
    epoch_images(loader, 4)
    assert torch.equal(epoch_images(loader, 3), first)
    assert not torch.equal(epoch_images(loader, 4), first)
    assert not torch.equal(epoch_images(make_loader(tmp_path, seed=1, **parts), 3), first)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("same_size", [True, False])
def test_kept_mapped_in_memory_or_decoded_again_it_is_the_same(tmp_path, name, same_size):
    split, parts = make_split(same_size=same_size), AUGMENTATIONS[name]
    ways = [
        dict(),
        dict(place="memory"),
        dict(place="device"),
        dict(keep=False),
        dict(keep=False, workers=1),
    ]
    loaders = [make_loader(tmp_path / str(i), split, **parts, **way) for i, way in enumerate(ways)]
    epochs = [epoch_images(loader, 1) for loader in loaders]
    plain = [torch.cat([images for images, _ in loader]) for loader in loaders]
    for epoch, seen in zip(epochs[1:], plain[1:], strict=True):
        assert torch.equal(epoch, epochs[0])
        assert torch.equal(seen, plain[0])


def test_iterating_shows_what_evaluation_sees(tmp_path):
    for i, parts in enumerate(AUGMENTATIONS.values()):
        train = make_loader(tmp_path / f"{i}", train=True, **parts)
        evaluated = make_loader(tmp_path / f"{i}", train=False, **parts)
        assert torch.equal(*(torch.cat([images for images, _ in loader]) for loader in (train, evaluated)))


def test_flipping_and_cropping_keep_pixels():
    pixels = torch.arange(3 * 10 * 14).reshape(3, 10, 14)
    assert torch.equal(random_crop(pixels, (10, 14), torch.tensor([0.9, 0.9, 0.9])), pixels)
    assert torch.equal(random_crop(pixels, (9, 13), torch.tensor([0.0, 0.99, 0.1])), pixels[:, :9, 1:])


def test_crops_reach_every_place_and_half_are_flipped(tmp_path):
    ramp = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    split = Split(lambda i: ramp, np.zeros(200, int), [str(i) for i in range(200)], lambda i: "ramp")
    loader = make_loader(tmp_path, split, augment="flip", size=(8, 9), mean=(0.0,) * 3, std=(1.0,) * 3)
    flipped = (epoch_images(loader, 0)[:, 0, 0, 0] != 0).float().mean()
    assert 0.4 < flipped < 0.6


def test_mixing_gives_shares_of_classes(tmp_path):
    loader = make_loader(tmp_path, mixup=0.8, cutmix=1.0, batch_size=5)
    for images, labels in loader.epoch(0):
        assert labels.shape == (5, 10)
        torch.testing.assert_close(labels.sum(1), torch.ones(5))
        assert images.shape == (5, 3, 8, 8)
    assert all(labels.ndim == 1 for _, labels in loader)


def test_one_image_alone_joins_the_batch_before(tmp_path):
    assert [len(b) for b in split_batches(torch.arange(10), 3)] == [3, 3, 4]
    assert [len(b) for b in split_batches(torch.arange(11), 3)] == [3, 3, 3, 2]
    assert [len(b) for b in split_batches(torch.arange(4), 3)] == [4]
    assert [len(b) for b in split_batches(torch.arange(1), 3)] == [1]
    assert [len(b) for b in split_batches(torch.arange(3), 1)] == [1, 1, 1]
    assert len(make_loader(tmp_path, make_split(9))) == 2


def test_a_file_that_goes_away_while_training_is_named(tmp_path):
    split = write_images(tmp_path, 6)
    loader = make_loader(tmp_path / "cache", split, keep=False)
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png can no longer be read"):
        list(loader)


# --- the cache


def write_images(root, count: int) -> FileSplit:
    (root / "images").mkdir(parents=True)
    rng = np.random.RandomState(1)
    for i in range(count):
        Image.fromarray(rng.randint(0, 255, (9, 11, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")
    return FileSplit(root / "images", [(f"{i}.png", i) for i in range(count)])


def counting(split: Split) -> list[int]:
    """Numbers of the images that are read from now on."""
    seen, read = [], split.read
    split.read = lambda i: (seen.append(i), read(i))[1]
    return seen


def test_images_are_decoded_once_and_found_again(tmp_path):
    split = write_images(tmp_path, 7)
    seen = counting(split)
    first = open_split(tmp_path / "cache", split, make_pixels())
    assert sorted(seen) == list(range(7))
    second = open_split(tmp_path / "cache", split, make_pixels())
    assert len(seen) == 7
    assert np.array_equal(first.store.array, second.store.array)
    assert np.array_equal(first.hashes, second.hashes)
    with Image.open(tmp_path / "images" / "4.png") as image:
        assert torch.equal(first.store.image(4), make_pixels().prepare(np.asarray(image)))


@pytest.mark.parametrize(
    "other",
    [
        dict(size=(8, 9)),
        dict(interpolation="bicubic"),
        dict(antialias=True),
        dict(decoder="tf"),
        dict(resize="crop"),
        dict(dtype="float32"),
        dict(augment="crop_flip", resize="crop"),
        dict(resize="native", patch=(4, 4)),
    ],
)
def test_other_pixels_are_kept_apart(tmp_path, other):
    split = make_split()
    open_split(tmp_path, split, make_pixels())
    seen = counting(split)
    open_split(tmp_path, split, make_pixels(**other))
    assert len(seen) == 10
    open_split(tmp_path, split, make_pixels(mean=(0.1,) * 3))
    assert len(seen) == 10, "mean and deviation do not change what is kept"


def test_a_changed_source_is_read_again(tmp_path):
    split = write_images(tmp_path, 4)
    open_split(tmp_path / "cache", split, make_pixels())
    Image.new("RGB", (9, 11), (200, 0, 0)).save(tmp_path / "images" / "2.png")
    known = open_split(tmp_path / "cache", split, make_pixels())
    assert known.store.image(2)[:, 4, 4].tolist() == [200, 0, 0]


def test_damage_is_noticed_and_repaired(tmp_path, caplog):
    split = make_split()
    whole = np.array(open_split(tmp_path, split, make_pixels()).store.array)
    (path,) = (p for p in tmp_path.glob("*.npy") if "hash" not in p.name)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        known = open_split(tmp_path, split, make_pixels())
    assert "damaged" in caplog.text
    assert np.array_equal(known.store.array, whole)
    for part in (content[:300], b""):
        path.write_bytes(part)
        assert np.array_equal(open_split(tmp_path, split, make_pixels()).store.array, whole)
    (sidecar,) = tmp_path.glob("*.json")
    sidecar.write_text("{")
    assert np.array_equal(open_split(tmp_path, split, make_pixels()).store.array, whole)


@pytest.mark.parametrize("parts", [{}, dict(augment="crop_flip", resize="crop")])
def test_what_does_not_fit_is_not_kept_and_says_so(tmp_path, caplog, parts):
    split = make_split(same_size=False)
    with caplog.at_level(logging.WARNING):
        known = open_split(tmp_path, split, make_pixels(**parts), limit=5 * 3 * 64)
    assert known.store is None
    assert "DATA.CACHE_GB" in caplog.text
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".npy" and "hash" not in p.name]
    assert not list(tmp_path.glob("*.partial"))
    seen = counting(split)
    assert open_split(tmp_path, split, make_pixels(**parts), limit=5 * 3 * 64).store is None
    assert not seen, "that they can be decoded is known by now"
    assert open_split(tmp_path, split, make_pixels(**parts)).store is not None


def test_the_limit_is_for_all_splits_together(tmp_path):
    cache = Cache(tmp_path, 10 * 3 * 64 + 5, 1)
    assert cache.open(make_split(), make_pixels(), True, "one", True).store is not None
    assert cache.open(make_split(seed=1), make_pixels(), True, "two", True).store is None
    again = Cache(tmp_path, 10 * 3 * 64 + 5, 1)
    assert again.open(make_split(), make_pixels(), True, "one", True).store is not None
    assert again.open(make_split(seed=1), make_pixels(), True, "two", True).store is None


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_stop(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        known = open_split(tmp_path / "file" / "cache", make_split(), make_pixels())
    assert known.store is None
    assert len(known.split) == 10
    assert "DATA.CACHE_DIR" in caplog.text


def test_a_folder_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    split = make_split()
    open_split(tmp_path, split, make_pixels())
    monkeypatch.setattr("src.data.cache.writable", lambda folder, what: False)
    seen = counting(split)
    assert open_split(tmp_path, split, make_pixels()).store is not None
    assert not seen


def test_a_full_disk_is_no_reason_to_stop(tmp_path, caplog, monkeypatch):
    from src.data.store import Writer

    def full(self, image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writer, "add", full)
    with caplog.at_level(logging.WARNING):
        known = open_split(tmp_path, make_split(), make_pixels())
    assert known.store is None
    assert "No space left" in caplog.text
    assert not list(tmp_path.glob(".*.partial"))


def test_broken_files_are_listed_and_stay_known(tmp_path):
    split = write_images(tmp_path, 5)
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    for _ in range(2):
        known = open_split(tmp_path / "cache", split, make_pixels())
        assert len(known.left_out) == 1
        assert known.left_out[0].startswith("1.png: it is truncated or not in a supported format")
        assert known.split.keys == ["0.png", "2.png", "3.png", "4.png"]
        assert len(known.store.array) == len(known.hashes) == 4
        assert torch.equal(known.store.image(1), make_pixels().prepare(split.read(2)))


def test_nothing_but_broken_files(tmp_path):
    split = Split(lambda i: b"", np.zeros(3, int), list("abc"), str)
    for _ in range(2):
        known = open_split(tmp_path, split, make_pixels())
        assert len(known.left_out) == 3
        assert len(known.split) == 0


def test_duplicates_are_found_byte_for_byte(tmp_path):
    one, other = make_split(5, seed=0), make_split(5, seed=1)
    both = (one + other).take(np.array([7, 2, 8, 4, 2]))
    found = duplicates(open_split(tmp_path, one, make_pixels()), open_split(tmp_path, both, make_pixels()))
    assert found == [("2", "2"), ("4", "4"), ("2", "2")]


# --- several processes


def slow_split(log: Path, seconds: float) -> Split:
    rng = np.random.RandomState(0)
    arrays = rng.randint(0, 255, (40, 12, 16, 3), dtype=np.uint8)

    def read(i: int) -> np.ndarray:
        with open(log, "a") as file:
            file.write(f"{os.getpid()} {i}\n")
        time.sleep(seconds)
        return arrays[i]

    return Split(read, np.arange(40), [str(i) for i in range(40)], lambda i: "slow")


def build(folder: Path, log: Path, seconds: float) -> None:
    known = open_split(folder, slow_split(log, seconds), make_pixels(), workers=1)
    assert known.store is not None


def start(folder, log, seconds=0.02):
    process = multiprocessing.get_context("fork").Process(target=build, args=(folder, log, seconds))
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_build_a_cache_once(tmp_path):
    log = tmp_path / "log"
    both = [start(tmp_path / "cache", log) for _ in range(2)]
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert len(log.read_text().splitlines()) == 40


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_builder_leaves_the_work_to_the_one_that_waits(tmp_path):
    log = tmp_path / "log"
    first = start(tmp_path / "cache", log)
    while not (log.exists() and len(log.read_text().splitlines()) > 5):
        time.sleep(0.01)
    second = start(tmp_path / "cache", log)
    time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    second.join(60)
    first.join(60)
    assert second.exitcode == 0
    done = [line for line in log.read_text().splitlines() if line.startswith(f"{second.pid} ")]
    assert len(done) == 40
    assert not list((tmp_path / "cache").glob(".*.partial"))
    build(tmp_path / "cache", tmp_path / "other log", 0)
    assert not (tmp_path / "other log").exists()


def test_jpeg_bytes_are_kept_as_decoded(tmp_path):
    file = io.BytesIO()
    Image.fromarray(make_split().read(0)).save(file, "JPEG")
    split = Split(lambda i: file.getvalue(), np.zeros(2, int), ["a", "b"], str)
    known = open_split(tmp_path, split, make_pixels(decoder="tf"))
    assert torch.equal(known.store.image(0), make_pixels(decoder="tf").prepare(file.getvalue()))
