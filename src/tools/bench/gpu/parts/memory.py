"""The peak memory of a training step, by method: what share of full fine-tuning's that is, and what was predicted."""

import gc
from collections.abc import Iterator

import torch

from .....configs.facts import image_size
from .....engine.precision import resolve_amp, set_backends
from .....engine.step_memory import Predicted
from .....models.vit_models import FREQFIT_METHODS, METHODS, TunedViT, parse
from ... import common
from ..finding import Finding, LeftOut, Room
from ..subjects import large_config, large_step

NEED_ALLOCATIONS = ("spt_lora", "spt_adapter")


def run(room: Room) -> Iterator[Finding]:
    if not room.on_gpu:
        raise LeftOut("a CPU's memory is the process's: torch does not count it")
    amp = resolve_amp("auto", torch.device(room.device))
    set_backends(large_config(room, "linear", ""), torch.device(room.device))
    full = peak(room, "end2end", "", amp)
    yield Finding(f"end2end, {amp}", f"{full / 2**30:.2f} GiB", values={"peak_memory_bytes": full})
    alone = [name for name in METHODS if name not in ("end2end", *FREQFIT_METHODS.values(), *NEED_ALLOCATIONS)]
    for methods, freqfit in [("linear", ""), ("lora", "freqfit"), *((name, "") for name in alone)]:
        if room.left() < 4:
            return
        name = f"{methods}, FREQFIT {freqfit}" if freqfit else methods
        try:
            most = peak(room, methods, freqfit, amp)
            expected = predicted(room, methods, freqfit, amp)
        except ValueError as error:
            yield Finding(f"{name}, {amp}", str(error).splitlines()[0][:200])
            continue
        values = {"peak_memory_bytes": most, "times_end2end": most / full, "predicted_bytes": expected}
        text = f"{most / 2**30:.2f} GiB, {most / full:.2f} times end2end; predicted: {expected / most:.2f} times this"
        yield Finding(f"{name}, {amp}", text, values=values)


def peak(room: Room, methods: str, freqfit: str, amp: str) -> int:
    """Bytes: the model, what a step keeps and makes, and the optimizer's states.

    Raises:
        ValueError: the methods do not fit the backbone.
    """
    step = large_step(room, methods, freqfit, "SOLVER.AMP", amp)
    step()  # optimizer states, workspaces
    torch.cuda.reset_peak_memory_stats(room.device)
    step()
    most = torch.cuda.max_memory_allocated(room.device)
    del step
    gc.collect()
    torch.cuda.empty_cache()
    return most


def predicted(room: Room, methods: str, freqfit: str, amp: str) -> int:
    """What SOLVER.MEMORY_GB would expect such a step to take: bytes.

    Raises:
        ValueError: the methods do not fit the backbone, or cannot be predicted.
    """
    cfg = large_config(room, methods, freqfit, "SOLVER.AMP", amp)
    with torch.device("meta"):
        model = TunedViT(common.random_vit(cfg), parse(methods, freqfit), cfg.MODEL, common.CLASSES)
    return Predicted(cfg, model, image_size(cfg), torch.device(room.device)).step(room.batch, 1).peak
