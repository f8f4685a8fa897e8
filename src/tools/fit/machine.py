"""This machine: what it has, and how long a training step takes on it."""

import psutil
from fvcore.common.config import CfgNode

from ...data.tasks import find_task
from ...engine.device import choose_device
from ...engine.shared import Shared
from ..doctor.machine import cpu_name, usable_cores
from ..tune.estimate import measured_speed


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
    """Of a run's training, measured on random images; the speed of the first candidate stands for all."""
    return cfg.DATA.BATCH_SIZE * measured_speed(cfg, find_task(cfg.DATA.NAME), shared).train
