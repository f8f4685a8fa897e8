"""Learning rate over time: a linear warm-up, then half a cosine, as in VPT or as in timm."""

import math
from collections.abc import Callable

from fvcore.common.config import CfgNode


def _cosine(base_lr: float, min_lr: float, warmup: float, total: float, at: float) -> float:
    """Half a cosine, which starts after the warm-up."""
    progress = (at - warmup) / max(1, total - warmup)
    return min_lr + (base_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _timm_cosine(base_lr: float, min_lr: float, warmup: float, total: float, at: float) -> float:
    """Half a cosine, which starts with the run: the warm-up replaces its first part."""
    return _cosine(base_lr, min_lr, 0, total, at)


def _constant(base_lr: float, min_lr: float, warmup: float, total: float, at: float) -> float:
    return base_lr


# SOLVER.SCHEDULER -> the learning rate after the warm-up.
SCHEDULES: dict[str, Callable[[float, float, float, float, float], float]] = {
    "cosine": _cosine,
    "timm": _timm_cosine,
    "constant": _constant,
}


def learning_rate(
    kind: str,
    base_lr: float,
    warmup: float,
    total: float,
    at: float,
    min_lr: float = 0.0,
    warmup_lr: float = 0.0,
) -> float:
    """The learning rate at ``at``, counted from 0, possibly fractional; in epochs or steps, like the other arguments.

    During warm-up, a line from warmup_lr to base_lr. Then min_lr + (base_lr - min_lr) (1 + cos(pi t)) / 2, where t goes
    from 0 at the end of the warm-up ("cosine"), or at the start ("timm": the warm-up hides the first part of the
    cosine), to 1 at ``total``; or base_lr ("constant"). With one rate per epoch, epoch 0 of a warm-up has warmup_lr.
    """
    if at < warmup:
        return warmup_lr + (base_lr - warmup_lr) * at / max(1, warmup)
    return SCHEDULES[kind](base_lr, min_lr, warmup, total, at)


class Schedule:
    """How long a run trains and with which learning rates, from the config node ``SOLVER``.

    With "timm" and a rate per epoch, ``schedule(epoch, step)`` is what timm's ``create_scheduler_v2`` (without warm-up
    prefix) sets in ``step(epoch)``; a rate per step is what its ``step_update`` sets after that many updates. "cosine"
    is the same function with a warm-up prefix, which TOTAL_EPOCH includes.

    Args:
        steps_per_epoch: of a full epoch.
    """

    def __init__(self, solver: CfgNode, steps_per_epoch: int):
        self.solver = solver
        self.steps_per_epoch = steps_per_epoch
        self.epochs = num_epochs(solver, steps_per_epoch)
        self.total = total_epochs(solver, steps_per_epoch)

    def steps(self, epoch: int) -> int:
        """Steps of ``epoch``: fewer than usual if MAX_STEPS ends within it."""
        left = self.solver.MAX_STEPS - epoch * self.steps_per_epoch
        return min(self.steps_per_epoch, left) if self.solver.MAX_STEPS else self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """The number of steps of all epochs."""
        return sum(map(self.steps, range(self.epochs)))

    @property
    def leaves_warm_up(self) -> bool:
        """Whether the run continues after the learning rate reached BASE_LR; for a rate per step."""
        solver = self.solver
        return self.total_steps > (solver.WARMUP_STEPS or solver.WARMUP_EPOCH * self.steps_per_epoch)

    def __call__(self, epoch: int, step: int) -> float:
        solver, per_epoch = self.solver, self.steps_per_epoch
        if solver.SCHEDULE_PER == "epoch":
            return self._rate(max(0, epoch - solver.SCHEDULE_LATE), solver.WARMUP_EPOCH, self.total)
        if solver.SCHEDULER == "timm" or solver.MAX_STEPS or solver.WARMUP_STEPS:  # a step uses the rate at its start
            warmup = solver.WARMUP_STEPS or solver.WARMUP_EPOCH * per_epoch
            return self._rate(epoch * per_epoch + step, warmup, solver.MAX_STEPS or self.total * per_epoch)
        return self._rate(epoch + (step + 0.5) / per_epoch, solver.WARMUP_EPOCH, self.total)

    def _rate(self, at: float, warmup: float, total: float) -> float:
        solver = self.solver
        return learning_rate(solver.SCHEDULER, solver.BASE_LR, warmup, total, at, solver.MIN_LR, solver.WARMUP_LR)


def total_epochs(solver: CfgNode, steps_per_epoch: int) -> int:
    """Epochs of the schedule: TOTAL_EPOCH, or more if MIN_STEPS needs more."""
    return max(solver.TOTAL_EPOCH, -(-solver.MIN_STEPS // steps_per_epoch))


def num_epochs(solver: CfgNode, steps_per_epoch: int = 1) -> int:
    """Epochs of a run; the last one may be partial.

    Args:
        steps_per_epoch: used only if MIN_STEPS or MAX_STEPS is set, see ``counts_steps``.
    """
    planned = total_epochs(solver, steps_per_epoch) + solver.COOLDOWN_EPOCH
    if solver.MAX_STEPS:
        planned = -(-solver.MAX_STEPS // steps_per_epoch)
    return min(solver.SEARCH_EPOCH or planned, planned)


def counts_steps(solver: CfgNode) -> bool:
    """Whether the number of epochs depends on the number of training images."""
    return bool(solver.MAX_STEPS or solver.MIN_STEPS)
