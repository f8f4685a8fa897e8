"""Data sets of a few small images, written as folders, lists, shards and the original archives."""

import io
import pickle
import tarfile

import numpy as np
from conftest import make_cfg
from PIL import Image
from sklearn.datasets import load_sample_image

from src.data.pixels import Pixels
from src.data.sources.base import Wanted
from src.data.tasks import find_task


def folder_cfg(path, **keys):
    return make_cfg(DATA__NAME="folder", DATA__DATAPATH=str(path), DATA__FEATURE="vit_micro_glyphs", **keys)


def write_images(root, counts: dict[str, dict[str, int]], size=(20, 30)):
    """``{"train": {"cat": 3}}`` -> train/cat/0.png ...; each image has a colour of its own."""
    for split, classes in counts.items():
        for number, (name, count) in enumerate(classes.items()):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", size, (40 * number, 3 * i, 7)).save(root / split / name / f"{i}.png")


def write_vtab(root, kind="jpg"):
    here = root / "dtd"
    for split, count in (("train800", 4), ("val200", 2), ("test", 3)):
        (here / "images" / split).mkdir(parents=True)
        lines = []
        for i in range(count):
            Image.new("RGB", (9, 9), (i, len(split), 0)).save(here / "images" / split / f"{i:06}.{kind}")
            lines.append(f"images/{split}/{i:06}.{kind} {i}")
        (here / f"{split}.txt").write_text("\n".join(lines))
    return here


def write_image(path, colour=(1, 2, 3), size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def open_layout(name: str, root, kind="", **wanted):
    layout = next(layout for layout in find_task(name).layouts if kind in ("", layout.kind) and layout.find(root))
    return layout.open(layout.find(root), Wanted(**wanted))


def write_fewshot(root, images="images"):
    lists = root / "annotations"
    lists.mkdir(parents=True)
    for i in range(6):
        write_image(root / images / f"a b/{i} c.jpg", (40 * i, 0, 0))
    (lists / "train_meta.list.num_shot_1.seed_0").write_text("a b/0 c.jpg 0\na b/0 c.jpg 0\na b/1 c.jpg 1\n")
    (lists / "train_meta.list.num_shot_16.seed_2").write_text("a b/2 c.jpg 0\na b/3 c.jpg 1\n")
    (lists / "val_meta.list").write_text("a b/4 c.jpg 36\n\n")
    (lists / "test_meta.list").write_text("a b/4 c.jpg 1\na b/5 c.jpg 0")


def write_cifar(root, name: str, key: str, per_class: int, classes: int):
    rng = np.random.RandomState(0)
    folder = root / ("cifar-10-batches-py" if classes == 10 else "cifar-100-python")
    folder.mkdir(parents=True)
    labels = np.repeat(np.arange(classes), per_class)
    content = {"data": rng.randint(0, 255, (len(labels), 3072), dtype=np.uint8), key: labels.tolist()}
    (folder / name).write_bytes(pickle.dumps(content))
    return content


def write_tar(path, images: dict[str, int]):
    with tarfile.open(path, "w") as archive:
        for key, label in images.items():
            for name, content in ((f"{key}.jpg", f"image {key}".encode()), (f"{key}.cls", str(label).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


GRADIENT = Image.fromarray(np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8)


PHOTO = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427


JPEG = encoded(PHOTO, "JPEG", quality=90)


def make_pixels(**parts) -> Pixels:
    return Pixels(**(dict(size=(224, 224), augment="none", mean=(0.5,) * 3, std=(0.5,) * 3) | parts))
