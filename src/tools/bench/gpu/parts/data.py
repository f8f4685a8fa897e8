"""Training images from disk to the device, alone and with steps of LoRA: whether a step waits for them."""

import logging
import time
from collections.abc import Iterator

import torch

from .....data.cache import Cache
from .....data.loader import Images, Loader
from .....data.pixels import Pixels
from .....engine.precision import set_backends
from .....models.vit_backbones.backbone import IMAGENET
from ... import common
from ...data import write_photos
from ..finding import Finding, Room, aimed
from ..subjects import large, large_config, step_of

SHARE_AIM = 0.95  # of the speed of steps on one batch that is there already
CROPS = dict(resize="crop", antialias=True)
KINDS = {
    "as they are": dict(augment="none"),
    "crop and flip": dict(augment="crop_flip", **CROPS),
    "random resized crop and flip": dict(augment="rrc_flip", interpolation="bicubic", **CROPS),
}


def run(room: Room) -> Iterator[Finding]:
    logging.disable(logging.CRITICAL)
    device, photos = torch.device(room.device), room.folder / "photos"
    photos.mkdir()
    split = write_photos(photos, 16 if room.tiny else 512)
    cfg = large_config(room, "lora", "", "SOLVER.AMP", "auto")
    set_backends(cfg, device)
    model = large(room, cfg).train()
    step = step_of(cfg, model)
    images, labels = common.image_batch(cfg, room.batch, device)
    alone = common.take_turns({"": lambda: lambda: step(images, labels)}, 1, device)[""].seconds / room.batch
    for name, parts in KINDS.items():
        if room.left() < 8:
            return
        size = tuple(images.shape[-2:])
        pixels = Pixels(**(dict(size=size, mean=IMAGENET[0], std=IMAGENET[1]) | parts))
        known = Cache(room.folder / "pixels", 1e12, 8).open(split, pixels, True, "photos", True)
        loader = Loader(Images(known, pixels, True, 8, "disk", device), room.batch, device, num_classes=10)
        _seconds(loader, 0, room)
        only, both = _seconds(loader, 1, room), _seconds(loader, 2, room, step)
        share = alone * len(split) / both
        text = (
            f"{len(split) / only:,.0f} images/s alone, {len(split) / both:,.0f} with steps, {share:.0%} of steps alone"
        )
        found = {"images_per_second": len(split) / both, "alone": len(split) / only, "share": share}
        yield aimed(f"photos, {name}", f"{text} (aim {SHARE_AIM:.0%})", share >= SHARE_AIM, **found)


def _seconds(loader: Loader, epoch: int, room: Room, step=lambda images, labels: None) -> float:
    start = time.perf_counter()
    for images, labels in loader.epoch(epoch):
        step(images, labels)
    if room.on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
