"""Lists, tables and shards that others made, damaged in hundreds of ways: one clear error that names the file.

Seeded: a case that fails has a number, and fails again.
"""

import io
import json
import random
import resource
import time

import numpy as np
import pyarrow
import pytest
import tiny_tfds
from image_sets import write_fewshot, write_image, write_images, write_tar, write_vtab
from PIL import Image
from pyarrow import parquet

from src.configs.config import ConfigError
from src.data.sources.base import DataError, Wanted
from src.data.tasks import TASKS
from src.tools.finished.sets import read_mapping

MOST_SECONDS, MOST_GROWTH = 5, 2**19  # of this process, for one case; KiB of memory for all cases of a reader
ODD_NUMBERS = ("-1", "2000000000", "99999999999999999999", "1e9", "0x10", "NaN", "", "1.5", "\u0663", "true", '"a"')


def encoded_table(labels, **options) -> bytes:
    file = io.BytesIO()
    image = io.BytesIO()
    Image.new("RGB", (3, 3)).save(image, "PNG")
    images = [{"bytes": image.getvalue(), "path": None} for _ in labels]
    table = pyarrow.table({"image": images, "label": labels})
    about = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), file, **options)
    return file.getvalue()


# Reader -> (make its files below a folder, the file that is damaged, how it is opened).


def list_file(root):
    write_image(root / "a b.png")
    write_image(root / "c.png")
    (root / "train.txt").write_text("a b.png 0\nc.png 1\n" * 3)
    lists = {"train": str(root / "train.txt"), "test": str(root / "train.txt")}
    return root / "train.txt", lambda: opened("lists", root, "lists", lists=lists)


def class_file(root):
    list_file(root)
    (root / "classes.txt").write_text("a cat\na dog\n")
    return root / "classes.txt", lambda: opened("lists", root, "lists", lists={"train": str(root / "train.txt")})


def index_file(root):
    write_images(root, {"train": {"a": 4, "b": 4}, "test": {"a": 1, "b": 1}})
    (root / "some.txt").write_text("0\n5\n7\n")
    return root / "some.txt", lambda: opened("folder", root, "folder", lists={"train": str(root / "some.txt")})


def array_file(root):
    _, _ = index_file(root)
    np.save(root / "some.npy", np.array([[0, 5, 7], [1, 2, 3]]))
    return root / "some.npy", lambda: opened("folder", root, "folder", lists={"train": str(root / "some.npy")})


def few_shot_list(root):
    folder = root / "oxford-pets"
    write_fewshot(folder)
    return folder / "annotations" / "val_meta.list", lambda: opened("fewshot-pets", root, "lists", shots=1)


def vtab_list(root):
    write_vtab(root)
    return root / "dtd" / "val200.txt", lambda: opened("dtd", root, "noah")


def json_split(root):
    (root / "images").mkdir(parents=True)
    for name in ("a", "b", "c"):
        write_image(root / "images" / f"{name}.png")
    for split in ("train", "val", "test"):
        (root / f"{split}.json").write_text(json.dumps({"a.png": 3, "b.png": 7, "c.png": 3}))
    return root / "val.json", lambda: opened("CUB", root, "fgvc")


def tar_file(root):
    write_tar(root / "train-0.tar", {f"a{i}": i % 2 for i in range(6)})
    write_tar(root / "test-0.tar", {"b": 1})
    return root / "train-0.tar", lambda: opened("folder", root, "shards")


def parquet_file(root):
    for split in ("train", "test"):
        (root / f"{split}-0.parquet").write_bytes(encoded_table([0, 1] * 4, row_group_size=3))
    return root / "train-0.parquet", lambda: opened("folder", root, "shards")


def text_parquet_file(root):
    for split in ("train", "test"):
        table = encoded_table(["dog", "cat"] * 4, write_page_checksum=True, compression="none")
        (root / f"{split}-0.parquet").write_bytes(table)
    return root / "train-0.parquet", lambda: opened("folder", root, "shards")


def mapping_csv(root):
    (root / "map.csv").write_text("one,1\nseven,7\nnine,\n")
    return root / "map.csv", lambda: read_mapping(str(root / "map.csv"))


def mapping_json(root):
    (root / "map.json").write_text(json.dumps({"one": "1", "seven": "7", "nine": None}))
    return root / "map.json", lambda: read_mapping(str(root / "map.json"))


def tfds_metadata(root, name="dataset_info.json", kind="tfrecord"):
    folder = tiny_tfds.write_tiny("dtd", root, kind, counts={"train": 8, "validation": 2, "test": 2}, shards=1)
    chosen = next(folder.glob(name))
    counts = {"train": "train", "val": "validation", "test": "test"}
    layout = TASKS["dtd"].layouts[0]
    made = type(layout)("dtd", "3.*.*", lambda found: counts)
    return chosen, lambda: read_all(made.open(folder, Wanted()))


def tfds_features(root):
    return tfds_metadata(root, "features.json")


def tfrecord(root):
    return tfds_metadata(root, "dtd-train.tfrecord*")


def array_record(root):
    return tfds_metadata(root, "dtd-train.array_record*", "array_record")


READERS = (
    *(list_file, class_file, index_file, array_file, few_shot_list, vtab_list, json_split, tar_file, parquet_file),
    *(text_parquet_file, mapping_csv, mapping_json, tfds_metadata, tfds_features, tfrecord, array_record),
)


def opened(name, root, kind, **wanted):
    layout = next(layout for layout in TASKS[name].layouts if layout.kind == kind)
    return read_all(layout.open(layout.find(root), Wanted(**wanted)))


def read_all(source):
    for split in source.splits.values():
        assert len(split.labels) == len(split.keys)
        for i in range(len(split)):
            split.read(i)
            split.stamp(i)
    return source


# ---- damage


def truncated(data, rng):
    return data[: rng.randrange(len(data))]


def bits_flipped(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def oversized(data, rng):
    """Something of it many times over, or zeros behind it."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 200)]
    return data[:start] + piece * rng.choice((2, 50, 20_000)) + data[start:] + bytes(rng.choice((0, 1, 100_000)))


def numbers_replaced(data, rng):
    digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
    at = rng.choice(digits) if digits else rng.randrange(len(data))
    return data[:at] + rng.choice(ODD_NUMBERS).encode() + data[at + 1 :]


def bytes_replaced(data, rng):
    """Names, brackets and separators become others."""
    at = rng.randrange(len(data))
    odd = rng.choice(
        (b"\xff\xfe", b"\0", b"\xe9", b'"', b"{", b"]", b",", b"\r", b"\\", b"../..", b"\xef\xbb\xbf", b"[" * 9999)
    )
    return data[:at] + odd + data[at + rng.randrange(4) :]


def something_else(data, rng):
    return rng.choice(
        (
            b"",
            b"\n",
            b"[]",
            b"{}",
            b"null",
            b'{"a": {"b": []}}',
            b"<html></html>",
            rng.randbytes(300),
            b"\x93NUMPY",
            b"PAR1" * 3,
        )
    )


DAMAGE = (truncated, bits_flipped, oversized, numbers_replaced, bytes_replaced, something_else)


@pytest.mark.parametrize("reader", READERS)
def test_damage_is_one_clear_error_or_does_no_harm(reader, tmp_path):
    path, read = reader(tmp_path)
    read()  # whole, it can be read
    whole, before = path.read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    errors = 0
    for case in range(60):
        rng = random.Random(case)
        damage = DAMAGE[case % len(DAMAGE)]
        path.write_bytes(damage(whole, rng))
        start = time.process_time()
        try:
            read()
        except (DataError, ConfigError) as error:
            errors += 1
            text = str(error)
            assert str(path) in text or path.parent.name in text, f"{damage.__name__} {case}: {text[:300]}"
            assert len(text) < 3000, f"{damage.__name__} {case}: {len(text)} characters"
            text.encode()
        except Exception as error:
            raise AssertionError(f"{damage.__name__}, case {case}: {type(error).__name__}: {error}"[:500]) from error
        assert time.process_time() - start < MOST_SECONDS, f"{damage.__name__} {case}"
    assert errors > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH
