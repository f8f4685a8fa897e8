"""1,000 images, 16 steps an epoch, by the trainer: what 100 epochs take, and what an epoch costs beside its steps."""

import logging
import time
from collections.abc import Iterator

import torch

from .....data.opened import open_data
from .....engine.precision import set_backends
from .....engine.results import RunFolder
from .....engine.trainer import Training
from .....models.vit_models import TunedViT, parse
from .....utils.signals import StopSignals
from ... import common
from ...linear import write_images
from ..finding import Finding, Room, aimed

AIM = 30.0  # seconds for 100 epochs of 1,000 images
VTAB_AIM = 15.0  # minutes for 19 tasks


def run(room: Room) -> Iterator[Finding]:
    logging.disable(logging.CRITICAL)
    count, some = (16, 2) if room.tiny else (1000, 10)
    folder = room.folder / "images"
    write_images(folder, count, 32 if room.tiny else 224)
    whole = 5 if room.tiny else 100
    amp = ("SOLVER.AMP", "auto")
    methods = {
        "LoRA + FreqFit": (some, "MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit"),
        "LoRA + FreqFit, images on the GPU, no checkpoints": (
            *(some, "MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit"),
            *("MODEL.SAVE_CKPT", "False", "DATA.CACHE_PLACE", "device" if room.on_gpu else "memory"),
        ),
        "linear, on kept features": (whole, "MODEL.TRANSFER_TYPE", "linear"),
        "end2end": (min(3, some), "MODEL.TRANSFER_TYPE", "end2end"),
    }
    for name, (epochs, *pairs) in methods.items():
        if room.left() < 8:
            return
        yield _trained(room, name, folder, epochs, (*amp, *pairs), first=name == "LoRA + FreqFit")


def _trained(room: Room, name: str, folder, epochs: int, pairs: tuple[str, ...], first: bool) -> Finding:
    """Time some epochs of a method; the time of 100 follows."""
    args, device = room.options(), torch.device(room.device)
    defaults = [
        "DATA.NAME", "folder", "DATA.DATAPATH", str(folder), "DATA.CACHE_DIR", str(room.folder / "cache"),
        "DATA.TRAIN_SPLIT", "trainval", "DATA.BATCH_SIZE", str(room.batch), "SOLVER.TOTAL_EPOCH", str(epochs),
        "SOLVER.WARMUP_EPOCH", "0",
    ]  # fmt: skip
    cfg = common.config(args, defaults, pairs)
    set_backends(cfg, device)
    data = open_data(cfg)
    loaders, _ = data.loaders(cfg, device)
    methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    model = TunedViT(common.random_vit(cfg), methods, cfg.MODEL, len(data.class_names)).to(device)
    run_folder = room.folder / "run"
    run_folder.mkdir(exist_ok=True)
    RunFolder(run_folder).last.unlink(missing_ok=True)
    training = Training(cfg, model, loaders, RunFolder(run_folder))
    start = time.perf_counter()
    training.prepare()
    prepared = time.perf_counter() - start
    start = time.perf_counter()
    training.run(StopSignals())
    if room.on_gpu:
        torch.cuda.synchronize()
    each = (time.perf_counter() - start - training.seconds["first_step"]) / epochs
    steps = (training.seconds["train"] - training.seconds["first_step"]) / epochs
    hundred = 100 * each + prepared
    text = (
        f"{hundred:.1f} s for 100 epochs of {len(loaders['train'].labels):,} images"
        + (f" (aim {AIM:.0f})" if first else "")
        + f"; an epoch {1000 * each:.0f} ms, {1000 * (each - steps):.0f} ms of it beside the steps"
        + (f"; so 19 tasks take {19 * hundred / 60:.1f} min and their tests (aim {VTAB_AIM:.0f})" if first else "")
    )
    values = {"hundred_epochs_s": hundred, "epoch_s": each, "steps_of_an_epoch_s": steps, "prepare_s": prepared}
    return aimed(name, text, hundred <= AIM, **values) if first else Finding(name, text, values=values)
