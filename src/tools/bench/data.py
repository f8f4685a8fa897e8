"""From JPEG files of 500x375 pixels to batches of 224x224, against what one would write with Pillow and torchvision."""

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as tv

from ...data.cache import Cache
from ...data.loader import Images, Loader
from ...data.pixels import Pixels
from ...data.sources.base import FileSplit
from ...models.vit_backbones.backbone import IMAGENET
from ...utils.plots import bar_chart
from ...utils.progress import tqdm
from .common import Report

SIDE = (500, 375)
SIZE = (224, 224)
BATCH = 64
TARGETS = {"first pass, vpt": 700, "cached batches, uint8": 20_000}

PIPELINES = {
    "vpt": dict(decoder="tf", interpolation="bilinear_tf1", antialias=False),
    "vpt, float32": dict(decoder="tf", interpolation="bilinear_tf1", antialias=False, dtype="float32"),
    "vpt, resized as by TensorFlow 2": dict(decoder="tf", interpolation="bilinear", antialias=False),
    "noah": dict(decoder="pil", interpolation="bicubic", antialias=True),
    "fgvc": dict(decoder="pil", resize="crop", antialias=True, augment="crop_flip"),
}


def write_photos(folder: Path, count: int) -> FileSplit:
    """JPEG files of random parts of the two photographs that ship with scikit-learn."""
    from sklearn.datasets import load_sample_images

    rng, photos = np.random.RandomState(0), [Image.fromarray(image) for image in load_sample_images().images]
    for i in range(count):
        photo = photos[i % len(photos)]
        left, top = rng.randint(photo.width - SIDE[0] + 1), rng.randint(photo.height - SIDE[1] + 1)
        photo.crop((left, top, left + SIDE[0], top + SIDE[1])).save(folder / f"{i}.jpg", quality=90)
    return FileSplit(folder, [(f"{i}.jpg", i % 10) for i in range(count)])


def contenders(split: FileSplit, folder: Path) -> dict[str, Callable[[], int]]:
    """The contenders: name -> function that returns the number of processed images."""
    works = {}
    for name, parts in PIPELINES.items():
        pixels = Pixels(**(dict(size=SIZE, augment="none", mean=IMAGENET[0], std=IMAGENET[1]) | parts))
        works[f"first pass, {name}"] = lambda pixels=pixels: _decode(split, pixels)
        if name in ("vpt", "fgvc"):
            scanned = Cache(folder, 1e12, 2).open(split, pixels, True, f"bench {name}", True)
            images = Images(scanned, pixels, True, 2)
            loader = Loader(images, BATCH, torch.device("cpu"))
            works[f"cached epoch, {name}, float32 on the CPU"] = lambda loader=loader: _go(loader.epoch(0))
        if name == "vpt":
            order = list(torch.randperm(len(split)).split(BATCH))
            works["cached batches, uint8"] = lambda images=images, order=order: sum(
                sum(len(batch) for batch in images.stacked(order)) for _ in range(20)
            )
    own = tv.Compose([tv.Resize(SIZE), tv.ToTensor(), tv.Normalize(*IMAGENET)])
    works["Pillow + torchvision, every epoch"] = lambda: sum(
        bool(len(own(Image.open(io.BytesIO(split.read(i))).convert("RGB")))) for i in range(len(split))
    )
    return works


def _decode(split: FileSplit, pixels: Pixels) -> int:
    for i in range(len(split)):
        pixels.prepare(split.read(i), train=True)
    return len(split)


def _go(batches) -> int:
    return sum(len(images) for images, _ in batches)


def measure(work: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Images per second of CPU time on one core; the median of rounds in which all take turns."""
    torch.set_num_threads(1)
    rates = {name: [] for name in work}
    for _ in tqdm(range(rounds), "rounds", leave=False):
        for name, do in work.items():
            start = time.process_time()
            count = do()
            rates[name].append(count / (time.process_time() - start))
    return {name: median(some) for name, some in rates.items()}


def table(rates: dict[str, float]) -> str:
    """A Markdown table, with ratios to the last row."""
    *_, last = rates
    lines = ["| | images/s, one core | times the last row | target |", "|---|--:|--:|--:|"]
    for name, rate in rates.items():
        target = f"{TARGETS[name]:,}" if name in TARGETS else ""
        lines.append(f"| {name} | {rate:,.0f} | {rate / rates[last]:.2f} | {target} |")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        split = write_photos(photos, args.images)
        rates = measure(contenders(split, Path(folder) / "cache"), args.rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    *_, last = rates
    return Report(
        f"{table(rates)}\n\n{args.images} images of 500x375, {args.rounds} rounds, peak memory {peak:.2f} GiB\n",
        {"images_per_second": rates, "images": args.images, "rounds": args.rounds},
        lambda path: bar_chart(
            {name: rate / rates[last] for name, rate in rates.items()},
            "From JPEG files to batches, on one core",
            f"times as fast as: {last}",
            path,
            logarithmic=True,
        ),
    )
