"""Estimated run times of a sweep before it starts: one step of each kind is timed on random images."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode

from ...configs import facts
from ...configs.config import load_settings
from ...data.pixels import build_pixels
from ...data.sources.base import DataError
from ...data.tasks import Task, find_task
from ...engine.device import choose_device
from ...engine.held import held
from ...engine.precision import autocast, set_backends
from ...engine.shared import Shared
from ...engine.step import TrainingStep
from ...models.prefix import frozen_prefix
from ...solver.losses import build_loss
from ...solver.lr_scheduler import Schedule
from ...solver.optimizer import build_optimizer
from ...utils.progress import tqdm
from .plan import Plan

logger = logging.getLogger(__name__)

IMAGES = {"cuda": 64, "cpu": 4}  # in a timed step; the time is proportional to their number
ROUNDS = 2
CLASSES = 100  # assumed if only the data determine the number


@dataclass(frozen=True)
class Speed:
    """Seconds: for the start, per image in training, and per image in evaluation.

    If features are kept, an image costs time only in the first epoch.
    """

    start: float
    train: float
    evaluate: float
    kept: bool

    def seconds(self, cfg: CfgNode, sizes: dict[str, int]) -> float:
        """The seconds of a whole run with ``sizes`` images per split."""
        solver = cfg.SOLVER
        schedule = Schedule(solver, self._steps_per_epoch(cfg, sizes["train"]))
        epochs = schedule.total_steps / schedule.steps_per_epoch
        evaluations = -(-schedule.epochs // solver.EVAL_EVERY) if solver.EVAL_EVERY else 1
        val, test = sizes.get("val", 0) * self.evaluate, sizes.get("test", 0) * self.evaluate
        if self.kept:
            return self.start + sizes["train"] * self.evaluate + val + test
        return self.start + epochs * sizes["train"] * self.train + evaluations * val + test

    @staticmethod
    def _steps_per_epoch(cfg: CfgNode, images: int) -> int:
        whole, rest = divmod(images, cfg.DATA.BATCH_SIZE)
        return max(1, whole + (rest > 0 and not cfg.DATA.DROP_LAST))


def published_sizes(cfg: CfgNode, task: Task) -> dict[str, int]:
    """Images per split of a run, by the published sizes of its data set; {} if there are none."""
    if not task.sizes:
        return {}
    sizes = dict(task.sizes)
    few = "train" not in sizes  # lists with a fixed number of images per class
    if shots := cfg.DATA.SHOTS or 16 * few:
        sizes["train"] = shots * task.num_classes if few else min(shots * task.num_classes, sizes["train"])
    if facts.train_split(cfg) == "trainval":
        sizes["train"] += sizes.pop("val", 0)
    sizes["train"] = round(sizes["train"] * cfg.DATA.PERCENTAGE)
    return {name: count for name, count in sizes.items() if name != "test" or not cfg.DATA.NO_TEST}


def measure(plan: Plan) -> list[str]:
    """Estimate the seconds of all unfinished runs; returns the kinds that could not be estimated, and why."""
    shared = Shared()
    speeds = {}
    unknown = {}
    groups = [runs for cell in plan.cells for runs in (cell.tuning, cell.finals) if not all(run.over for run in runs)]
    with tqdm(groups, "timing a step of each kind", unit="kind", leave=False) as bar:
        for runs in bar:
            cfg = load_settings(runs[0].settings, [], quiet=True)
            task, kind = find_task(cfg.DATA.NAME), f"{runs[0].cell.row or cfg.MODEL.TRANSFER_TYPE}, {cfg.DATA.FEATURE}"
            if not (sizes := _sizes(cfg, task, shared)):
                unknown[task.name] = "the number of images is unknown without the data, which were not found"
                continue
            try:
                if kind not in speeds and kind not in unknown:
                    speeds[kind] = measured_speed(cfg, task, shared)
            except (OSError, ValueError) as error:
                unknown[kind] = str(error).splitlines()[0]
            for run in runs if kind in speeds else ():
                run.seconds = run.seconds if run.over else speeds[kind].seconds(cfg, sizes)
    return [f"{kind}: {why}" for kind, why in unknown.items()]


def _sizes(cfg: CfgNode, task: Task, shared: Shared) -> dict[str, int]:
    """Images per split of a run; published sizes if the data were not found; {} if unknown."""
    with suppress(DataError, OSError):
        return {name: len(split) for name, split in shared.data(cfg).splits.items()}
    return published_sizes(cfg, task)


def measured_speed(cfg: CfgNode, task: Task, shared: Shared, count: int = 0) -> Speed:
    """Measure the speed on this machine, without compilation.

    Args:
        count: images in a timed step; 0: IMAGES.

    Raises:
        FileNotFoundError, ValueError: from building the model.
    """
    device = choose_device(cfg.DEVICE)
    set_backends(cfg, device)
    start = time.perf_counter()
    model, memo = shared.model(cfg, task.num_classes or CLASSES, device)
    start = time.perf_counter() - start
    count = count or IMAGES[device.type]
    images = torch.rand(count, 3, *build_pixels(cfg, task.protocol).size, device=device)
    labels = torch.zeros(count, dtype=torch.long, device=device)
    with autocast(cfg, device):
        kept = frozen_prefix(model, images, memo) is not None and cfg.DATA.CACHE_FEATURES != "off"
    kept = kept and not build_pixels(cfg, task.protocol).random
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER, device.type == "cuda", model)
    loss_of = build_loss(cfg.SOLVER.LOSS, None, cfg.SOLVER.LABEL_SMOOTHING)
    step = TrainingStep(cfg, model, optimizer, loss_of, device)

    def evaluate() -> None:
        with torch.inference_mode(), autocast(cfg, device):
            model(images)

    with held(model, cfg, device, memo):
        train = _timed(lambda: step(images, labels), device) / count
        model.eval()
        return Speed(start, train, _timed(evaluate, device) / count, kept)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest call after a warm-up call."""
    seconds = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
