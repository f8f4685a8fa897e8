"""Whole runs on the digits: they learn in every precision, repeat to the bit, and go on on another device."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from .....configs.config import load_cfg
from .....engine.precision import resolve_amp
from .....engine.results import RunFolder
from .....engine.run import run as train
from .....utils.signals import Interrupted
from ..finding import Finding, LeftOut, Room, apart, checked

LEAST = 0.95  # test accuracy of LoRA with FreqFit on the digits; 98.6 % is usual
CLOSE = 0.02  # how far the last loss of a run that changed its device may be from that of one that did not


def run(room: Room) -> Iterator[Finding]:
    try:
        import sklearn.datasets  # noqa: F401 - has the digits
    except ImportError as error:
        raise LeftOut(f"needs the digits, which come with scikit-learn: {error}") from error
    yield from apart("learning on the digits", _learns(room))
    yield from apart("DETERMINISTIC True twice", _repeats(room))
    yield from apart("an epoch here, one on the CPU, one here", _moves(room))


def _train(room: Room, name: str, *pairs: str, stop_after: int = 0, resume: bool = False) -> dict:
    """The result, or that of the next call where the run is stopped after some epochs."""
    short = ["DATA.PERCENTAGE", "0.1", "SOLVER.TOTAL_EPOCH", "2"] if room.tiny else []
    method = ["MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit", "DEVICE", room.device]
    cfg = load_cfg("digits", [*method, *short, *pairs])

    def watch(rows: list[dict]) -> None:
        if len(rows) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    return train(cfg, RunFolder(room.folder / name), resume=resume, watch=watch)


def _learns(room: Room) -> Iterator[Finding]:
    for amp in ("off", "bf16", "fp16"):
        with suppress(ValueError):
            resolve_amp(amp, torch.device(room.device))
            if room.tiny and amp != "off":
                continue
            if not room.on_gpu and amp == "fp16":
                continue
            result = _train(room, f"amp-{amp}", "SOLVER.AMP", amp)
            top1 = result["test"]["top1"]
            text = f"{100 * top1:.2f} % of the test images, {result['cost']['seconds']['train']:.1f} s"
            yield checked(
                f"LoRA + FreqFit on the digits, SOLVER.AMP {amp}", text, room.tiny or top1 >= LEAST, top1=top1
            )


def _losses(folder: Path) -> list[str]:
    import simplejson

    return [repr(simplejson.loads(line)["loss"]) for line in RunFolder(folder).metrics.read_text().splitlines()]


def _repeats(room: Room) -> Iterator[Finding]:
    pairs = ("SOLVER.AMP", "bf16" if room.on_gpu else "off", "SOLVER.TOTAL_EPOCH", "2")
    for name in ("first", "second"):
        _train(room, name, "DETERMINISTIC", "True", *pairs)
    one, two = (_losses(room.folder / name) for name in ("first", "second"))
    torch.use_deterministic_algorithms(False)
    yield checked("DETERMINISTIC True twice", "equal losses" if one == two else f"{one} and {two}", one == two)


def _moves(room: Room) -> Iterator[Finding]:
    pairs = ("SOLVER.TOTAL_EPOCH", "3", "SOLVER.AMP", "off")
    _train(room, "whole", *pairs)
    devices = (room.device, "cpu", room.device)
    for epoch, device in enumerate(devices, start=1):
        with suppress(Interrupted):
            stop = epoch if epoch < len(devices) else 0
            _train(room, "moved", *pairs, "DEVICE", device, stop_after=stop, resume=epoch > 1)
    one, two = (float(_losses(room.folder / name)[-1]) for name in ("whole", "moved"))
    text = f"after {', '.join(devices)} the last loss is {two:.4f}, without moving {one:.4f}"
    yield checked("an epoch here, one on the CPU, one here", text, abs(one - two) <= CLOSE * one, losses=[one, two])
