"""Several processes that train one model together: their ranks and their communication.

``torchrun --nproc_per_node N train.py ...`` starts them and sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT; so can ``srun`` (configs/slurm.sh). A single process has rank 0 of 1 and does not communicate.
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

# How long to wait for a process that hangs; one that dies is noticed at once.
PATIENCE = timedelta(minutes=30)


class ProcessLost(OSError):
    """Another process of this run has ended."""


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def part() -> tuple[int, int]:
    """This process's part of the work: (rank, count)."""
    return rank(), count()


def is_first() -> bool:
    """Whether this process, rank 0, writes files and logs."""
    return rank() == 0


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Join the other processes, if there are any: gloo between CPUs, NCCL between GPUs.

    Raises:
        ValueError: the environment has a number of processes but no address.
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
            raise ProcessLost("another process of this run has ended; see its output for the reason") from error
        raise
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


def meet() -> None:
    """Wait for all processes."""
    if count() > 1:
        dist.barrier()


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let rank 0 run the block before the other processes do."""
    if not is_first():
        meet()
    yield
    if is_first():
        meet()


def add_up(values: Tensor) -> Tensor:
    """The sum of ``values`` over all processes, on each of them; with one process, the same tensor."""
    if count() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather(content: Any) -> list:
    """The ``content`` of all processes in rank order, on each of them; keep tensors on the CPU."""
    if count() == 1:
        return [content]
    contents = [None] * count()
    dist.all_gather_object(contents, content)
    return contents


def interleave(parts: list[Tensor]) -> Tensor:
    """The rows of all processes' parts, in the original order: the inverse of [rank::count]."""
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].new_empty((sum(len(rows) for rows in parts), *parts[0].shape[1:]))
    for rank, rows in enumerate(parts):
        whole[rank :: len(parts)] = rows
    return whole


def whole(content: Any) -> Any:
    """Nested dicts and lists with every sharded tensor (FSDP2) gathered, on all processes."""
    if isinstance(content, dict):
        return {key: whole(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(whole(value) for value in content)
    return content.full_tensor() if isinstance(content, DTensor) else content


def spread(tensor: Any, like: Tensor) -> Any:
    """``tensor`` sharded like ``like``, if that is sharded."""
    if isinstance(like, DTensor) and isinstance(tensor, Tensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor


class Agreement:
    """Whether any process votes yes, known to all in the same step; one step late, so that no process waits."""

    def __init__(self):
        self.pending = None

    def __call__(self, vote: bool) -> bool:
        """Whether any process voted yes: in this step with one process, else in the previous step."""
        if count() == 1:
            return vote
        agreed = self.settle()
        self.votes = torch.tensor([float(vote)])
        self.pending = dist.all_reduce(self.votes, op=dist.ReduceOp.MAX, async_op=True)
        return agreed

    def settle(self) -> bool:
        """Wait for the pending vote."""
        if self.pending is None:
            return False
        self.pending.wait()
        self.pending = None
        return bool(self.votes.item())
