"""A run for which the GPU's memory is too small: what it says, and that training is not lost to a test that is."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import torch

from .... import command
from ....train.__main__ import main as train
from ..finding import Finding, LeftOut, Room, checked

TRAINING_MIB, TEST_MIB = 40, (70, 80, 90, 100, 120)


def run(room: Room) -> Iterator[Finding]:
    if not room.on_gpu:
        raise LeftOut("only a GPU's memory can be limited")
    status, lines = _train(room, TRAINING_MIB, room.folder / "training", "MODEL.TRANSFER_TYPE", "end2end")
    text = f"status {status}: {lines[-1] if lines else 'nothing'}"
    yield checked("too little to train", text, status == 1 and command.LESS_MEMORY in lines)
    for limit in TEST_MIB:  # enough to train, and not to test all images at once
        folder = room.folder / f"test{limit}"
        status, _ = _train(room, limit, folder, "MODEL.TRANSFER_TYPE", "linear", "DATA.EVAL_BATCH_SIZE", "797")
        if status and (folder / "last.ckpt").is_file():
            break
    kept = (folder / "last.ckpt").is_file()
    yield checked(
        "too little to test", f"at {limit} MiB, training is {'kept' if kept else 'lost'}", bool(status and kept)
    )
    status, lines = _train(
        room, limit, folder, "MODEL.TRANSFER_TYPE", "linear", "DATA.EVAL_BATCH_SIZE", "32", "--resume"
    )
    yield checked("resumed with smaller batches", f"status {status}: {' '.join(lines[-1:])[:200]}", status == 0)


def _train(room: Room, mib: int, folder: Path, *options: str) -> tuple[int, list[str]]:
    """The exit status of a short run within so much memory, and what it says on stderr."""
    device = torch.device(room.device).index or 0
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(mib * 2**20 / total, device)
    short = ("SOLVER.TOTAL_EPOCH", "2", "SOLVER.WARMUP_EPOCH", "0", "DATA.CACHE_FEATURES", "off", "DEVICE", room.device)
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            status = train(["digits", *short, "--run-dir", str(folder), *options])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return status, heard.getvalue().strip().splitlines()
