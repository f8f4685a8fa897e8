"""Several processes that train one model together: who this one is, and what they tell each other.

``torchrun --nproc_per_node N train.py ...`` starts them and says so in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT; so can ``srun`` (configs/slurm.sh). A process that is alone is the first of one, and tells nobody anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from .launch import expected

# How long to wait for the others. One that dies is noticed at once; this is for one that hangs.
PATIENCE = timedelta(minutes=30)


class ProcessLost(OSError):
    """Another process of this run is gone."""


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def part() -> tuple[int, int]:
    """This process's part of the work: which, of how many."""
    return rank(), count()


def is_first() -> bool:
    """Whether this is the process that writes files and talks."""
    return rank() == 0


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Join the other processes, if there are any: gloo between CPUs, NCCL between GPUs.

    Raises:
        ValueError: the environment names processes but not where to meet them.
        ProcessLost: one of them ended before the others.
    """
    if expected() == 1 or dist.is_initialized():
        yield
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ValueError(f"WORLD_SIZE is {expected()}, but {', '.join(missing)} is not set: start with torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise ProcessLost("another process of this run ended; what it printed says why") from error
        raise
    dist.destroy_process_group()  # not after an error: the others may be gone, and it would wait for them


def meet() -> None:
    """Wait until every process is here."""
    if count() > 1:
        dist.barrier()


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let the first process do something that the others then find done."""
    if not is_first():
        meet()
    yield
    if is_first():
        meet()


def add_up(values: Tensor) -> Tensor:
    """The sum of every process's ``values``, on all of them; alone, the same tensor."""
    if count() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather(content: Any) -> list:
    """What every process gave, in their order, on all of them; tensors had better be on the CPU."""
    if count() == 1:
        return [content]
    found = [None] * count()
    dist.all_gather_object(found, content)
    return found


def interleave(parts: list[Tensor]) -> Tensor:
    """Rows of every process's part of the work, back in the order of the whole: the inverse of [which::count]."""
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].new_empty((sum(len(rows) for rows in parts), *parts[0].shape[1:]))
    for which, rows in enumerate(parts):
        whole[which :: len(parts)] = rows
    return whole


def whole(content: Any) -> Any:
    """Nested dicts and lists with every tensor that is spread over processes (FSDP2) in one piece, on all of them."""
    if isinstance(content, dict):
        return {key: whole(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(whole(value) for value in content)
    return content.full_tensor() if isinstance(content, DTensor) else content


def spread(tensor: Any, like: Tensor) -> Any:
    """``tensor`` spread over processes as ``like`` is, if it is."""
    if isinstance(like, DTensor) and isinstance(tensor, Tensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor


class Agreement:
    """A yes of any process, heard by all in the same step. The answer comes one step late, so that nobody waits."""

    def __init__(self):
        self.pending = None

    def __call__(self, said: bool) -> bool:
        """Whether anybody said yes, here and now if alone, else in the step before."""
        if count() == 1:
            return said
        agreed = self.settle()
        self.said = torch.tensor([float(said)])
        self.pending = dist.all_reduce(self.said, op=dist.ReduceOp.MAX, async_op=True)
        return agreed

    def settle(self) -> bool:
        """Hear what is still on its way."""
        if self.pending is None:
            return False
        self.pending.wait()
        self.pending = None
        return bool(self.said.item())
