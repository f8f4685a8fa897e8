"""This machine: what it has, and how long a training step takes on it."""

import psutil
from fvcore.common.config import CfgNode

from ...data.tasks import find_task
from ...engine.device import choose_device
from ...engine.shared import Shared
from ..doctor.machine import cpu_name, usable_cores
from ..tune.estimate import measured_speed

QUICK = 10.0  # seconds of a step


def machine(device: str) -> dict:
    """Cores, memory and what runs compute on; ``device`` is DEVICE."""
    chosen = choose_device(device)
    name = cpu_name()
    if chosen.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(chosen)
    memory = psutil.virtual_memory()
    return {"device": str(chosen), "name": name, "cores": usable_cores(), "memory_gib": round(memory.total / 2**30, 1)}


def seconds_per_step(cfg: CfgNode, shared: Shared) -> float:
    """Of a run's training, measured on random images; the speed of the first candidate stands for all.

    A step of few images may take as long as one of many: where it is quick, a whole batch is timed.
    """
    batch, task = cfg.DATA.BATCH_SIZE, find_task(cfg.DATA.NAME)
    seconds = batch * measured_speed(cfg, task, shared).train
    return batch * measured_speed(cfg, task, shared, batch).train if seconds < QUICK else seconds
