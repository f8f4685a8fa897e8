"""Training: epochs over a loader, one log line each, resumable after each. Reads from top to bottom."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ..configs.checks import rarely_measured
from ..data.loader import Loader
from ..models.memo import Memo
from ..models.vit_models import TunedViT
from ..solver.ema import Average
from ..solver.losses import build_loss, class_weights
from ..solver.lr_scheduler import Schedule
from ..solver.optimizer import build_optimizer, set_learning_rate
from ..utils import distributed
from ..utils.io import WriteError, write_json_lines
from ..utils.progress import tqdm
from ..utils.signals import Interrupted, StopSignals
from .checkpoint import CheckpointError, copy_of_tuned, load_last, put_back, save_last
from .evaluator import BrokenModel, Metrics, evaluate
from .features import reuse_features
from .held import held
from .logistic import fit_head
from .precision import autocast
from .results import RunFolder
from .step import TrainingStep, compiled, over_processes, shard, some_unreached, with_shared_norms
from .trackers import Trackers
from .what_to_keep import set_recompute

logger = logging.getLogger(__name__)


Watch = Callable[[list[dict]], None]  # receives the rows of metrics.jsonl so far

PROGRESS = ("rows", "best", "steps", "epoch_seconds", "losses", "seconds")  # the attributes of Training in last.ckpt


class NonFiniteLoss(FloatingPointError):
    """The loss, or an output for an image, became infinite or NaN; the message says where."""


def train(
    cfg: CfgNode,
    model: TunedViT,
    loaders: dict[str, Loader],
    run: RunFolder,
    stop: StopSignals | None = None,
    trackers: Trackers | None = None,
    memo: Memo | None = None,
    watch: Watch | None = None,
    save_seconds: float = 0.0,
) -> dict:
    """Train ``model`` on ``loaders["train"]`` and leave it with the weights to be tested.

    These are the last epoch's or, with early stopping (validation images that are not trained on, and PATIENCE smaller
    than the number of epochs), the best epoch's. Resumes from ``run.last`` if it exists. Uses the test set only with
    BEST_TEST_EPOCH, and never selects by it.

    Args:
        trackers: TensorBoard and the like, which log every epoch.
        memo: what earlier runs computed for this model.
        watch: called after every epoch with the rows of metrics.jsonl so far; may raise StoppedEarly.
        save_seconds: the shortest time between two writes of last.ckpt and metrics.jsonl after epochs.

    Returns:
        the training part of the result: epochs, the best epoch and its validation metrics, seconds; and the ``rows`` of
        metrics.jsonl.

    Raises:
        NonFiniteLoss: the loss is infinite or NaN.
        StoppedEarly: ``watch`` raised it.
        Interrupted: a stop signal arrived; the state is in ``run.last``.
    """
    if cfg.SOLVER.OPTIMIZER == "lbfgs":
        return fit_head(cfg, model, loaders, run, trackers, memo)
    training = Training(cfg, model, loaders, run, trackers, memo, watch, save_seconds)
    training.resume()
    training.prepare()
    with stop.deferred() if stop else nullcontext():
        training.run(stop or StopSignals())
    return training.finish()


class Training:
    """One run's training and its progress.

    Attributes:
        rows: of the finished epochs, as in metrics.jsonl.
        steps: finished in the current epoch, with their ``losses``, over all processes, and ``epoch_seconds``.
        seconds: per phase, including before interruptions.
        best: the epoch with the best validation accuracy so far.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: TunedViT,
        loaders: dict[str, Loader],
        run: RunFolder,
        trackers: Trackers | None = None,
        memo: Memo | None = None,
        watch: Watch | None = None,
        save_seconds: float = 0.0,
    ):
        self.cfg = cfg
        self.solver = cfg.SOLVER
        self.model = model
        self.memo = memo or Memo()
        self.run_folder = run
        self.trackers = trackers
        self.watch = watch
        self.save_seconds = save_seconds
        self.saved_at = time.perf_counter()
        self.save_took = 0.0
        self.loader = loaders["train"]
        self.val = loaders.get("val")
        self.test = loaders.get("test") if self.solver.BEST_TEST_EPOCH else None  # only for the record, see _test
        self.device = self.loader.device
        labels = self.loader.labels.numpy()
        weights = class_weights(labels, model.head.last_layer.out_features, cfg.DATA.CLASS_WEIGHTS_TYPE)
        weights = None if weights is None else weights.to(self.device)
        self.loss_of = build_loss(self.solver.LOSS, weights, self.solver.LABEL_SMOOTHING)
        set_recompute(cfg, model, self.device, self.memo)
        if self.solver.FSDP:
            shard(model)
        on_gpu = self.device.type == "cuda"
        self.optimizer = build_optimizer(model.named_parameters(), self.solver, fused=on_gpu, model=model)
        self.schedule = Schedule(self.solver, len(self.loader))
        self.epochs = self.schedule.epochs
        self.stops_early = self.val is not None and self.epochs > self.solver.PATIENCE
        self._require_schedule()
        self.step = TrainingStep(cfg, model, self.optimizer, self.loss_of, self.device)
        self.average = Average(model, self.solver.EMA) if self.solver.EMA else None
        self.rows = []
        self.best = {"epoch": -1, "top1": -1.0, "state": None}
        self._begin_epoch()
        self.seconds = {"features": 0.0, "first_step": 0.0, "train": 0.0, "validate": 0.0}
        self.started = False

    def _begin_epoch(self) -> None:
        self.steps = 0
        self.epoch_seconds = 0.0
        self.losses = torch.zeros(0)

    def _require_schedule(self) -> None:
        """Check and log what depends on the number of steps in the schedule.

        Raises:
            ValueError: early stopping is on, but validation is too rare for it.
        """
        if self.stops_early and (problem := rarely_measured(self.solver, self.epochs)):
            raise ValueError(problem)
        if self.schedule.total > self.solver.TOTAL_EPOCH and not self.solver.MAX_STEPS:
            logger.info(
                "%d epochs instead of %d, to make %d steps (SOLVER.MIN_STEPS)",
                self.schedule.total,
                self.solver.TOTAL_EPOCH,
                self.solver.MIN_STEPS,
            )
        if (self.solver.MAX_STEPS or self.solver.WARMUP_STEPS) and not self.schedule.leaves_warm_up:
            logger.warning("note: the run ends during its warm-up, after %d steps", self.schedule.total_steps)
        if self.solver.EMA and (share := self.solver.EMA**self.schedule.total_steps) > 0.01:
            logger.warning(
                "note: at the end, the initial weights still make up %.0f %% of the average (SOLVER.EMA %g, %d steps)",
                100 * share,
                self.solver.EMA,
                self.schedule.total_steps,
            )

    def prepare(self) -> None:
        """Compute what is constant over epochs, compile the rest, and distribute it over processes."""
        start = time.perf_counter()
        unreached = False
        loaders = {"train": self.loader, "val": self.val, "test": self.test}
        loaders = {name: loader for name, loader in loaders.items() if loader is not None}
        self.network, loaders = reuse_features(
            self.cfg, self.model, loaders, autocast(self.cfg, self.device), self.memo
        )
        self.loader, self.val, self.test = (loaders.get(name) for name in ("train", "val", "test"))
        self.seconds["features"] += time.perf_counter() - start
        if distributed.count() > 1 and not self.solver.FSDP:
            self.network = with_shared_norms(self.network, self.device)
            images, _ = next(self.loader.epoch(0, 0, distributed.part()))
            unreached = some_unreached(self.network, images, self.step.trained)
        self.network = compiled(self.network, self.cfg, self.memo)
        self.step.network = over_processes(self.network, self.device, unreached)

    # --- stopping and resuming

    def save(self) -> None:
        """Write ``run.last``, from which ``resume`` continues to exactly the same result."""
        if not self.cfg.MODEL.SAVE_CKPT:
            return
        start = time.perf_counter()
        progress = {name: getattr(self, name) for name in PROGRESS} | {"made": self._circumstances()}
        if self.average:
            progress["average"] = self.average.values
        try:
            save_last(self.run_folder.last, self.model, self.optimizer, self.step.scaler, progress)
        except WriteError as error:
            raise WriteError(f"{error}. Make room there, then continue with --resume") from error
        self.saved_at = time.perf_counter()
        self.save_took = self.saved_at - start

    def _stop(self, stop: StopSignals) -> None:
        """Raise Interrupted once rank 0 has written: if a process ends earlier, a scheduler kills the others."""
        distributed.meet()
        where = f"epoch {len(self.rows)}" + (f", step {self.steps}" if self.steps else "")
        raise Interrupted(f"{stop.received or 'another process'} after {where}")

    def resume(self) -> None:
        """Continue from ``run.last`` if it exists; log where, and what has changed since."""
        seen = distributed.gather(self.run_folder.last.is_file())
        if len(set(seen)) > 1:
            raise FileNotFoundError(
                f"{self.run_folder.last} is not visible to every process: all processes must share this folder"
            )
        if not seen[0]:
            return
        progress = load_last(self.run_folder.last, self.model, self.optimizer, self.step.scaler)
        if progress.keys() != {*PROGRESS, "made", *(["average"] if self.average else [])}:
            raise CheckpointError(f"{self.run_folder.last} is of another version: remove it to restart this run")
        made, now = progress.pop("made"), self._circumstances()
        if self.average:
            self.average.load(progress.pop("average"))
        for name, value in progress.items():
            setattr(self, name, value)
        where = f"after epoch {len(self.rows)}/{self.epochs}" + (f", step {self.steps}" if self.steps else "")
        logger.info("resuming %s", where)
        if changes := [f"{name} {made[name]} before, {now[name]} now" for name in now if made.get(name) != now[name]]:
            logger.info("note: %s; the result can differ in its last digits", "; ".join(changes))

    def _circumstances(self) -> dict:
        """Circumstances that may differ between the parts of an interrupted run."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {"device": device, "processes": distributed.count(), "torch": str(torch.__version__)}

    # --- the epochs

    def run(self, stop: StopSignals) -> None:
        if self.trackers:
            self.trackers.begin(self.rows)
        with self._progress_bar() as bar, held(self.model, self.cfg, self.device, self.memo):
            for epoch in range(len(self.rows), self.epochs):
                if self.stops_early and epoch - 1 - self.best["epoch"] >= self.solver.PATIENCE:
                    logger.info("no better validation accuracy for %d epochs: stopping", self.solver.PATIENCE)
                    break
                lr = self._train_epoch(epoch, stop, bar)
                row = {"epoch": epoch + 1, "loss": self._mean_loss(), "lr": lr} | self._validate(epoch) | self._test()
                row["seconds"] = self.epoch_seconds
                self.rows.append(row)
                self._begin_epoch()
                self._report(row)
                stopping = any(distributed.gather(bool(stop.received)))
                last = len(self.rows) == self.epochs
                if stopping or last or self._save_is_due():
                    self._write_metrics()
                    self.save()
                if stopping:
                    self._stop(stop)
                if self.watch:
                    self.watch(self.rows)
        self._write_metrics()  # in case training ended before the planned last epoch

    def _save_is_due(self) -> bool:
        """Whether last.ckpt is old enough to rewrite, so that writing takes at most a tenth of the time."""
        age = time.perf_counter() - self.saved_at
        return any(distributed.gather(age >= max(self.save_seconds, 9 * self.save_took)))

    def _write_metrics(self) -> None:
        if distributed.is_first():
            write_json_lines(self.run_folder.metrics, self.rows)

    def _train_epoch(self, epoch: int, stop: StopSignals, bar: tqdm) -> float:
        """One pass over the training images, or the rest of one; returns the last step's learning rate."""
        self.step.network.train()
        solver = self.solver
        sizes = self._batch_sizes(epoch)
        agreed = distributed.Agreement()
        lr = 0.0
        start, fresh = time.perf_counter(), []
        batches = islice(self.loader.epoch(epoch, self.steps, distributed.part()), len(sizes) - self.steps)
        for step, (images, targets) in enumerate(batches, start=self.steps):
            lr = self.schedule(epoch, step)
            set_learning_rate(self.optimizer, lr)
            fresh.append(self.step(images, targets, sizes[step]))
            if self.average:
                self.average.update()
            if not self.started:
                fresh[-1].item()  # waits for the GPU and the compiler
                self.seconds["first_step"] += time.perf_counter() - start
                self.started = True
            # Check the loss now only if that does not wait for a GPU or other processes; else after the epoch.
            if self.device.type == "cpu" and distributed.count() == 1:
                self._check_finite(fresh[-1:], epoch, step, lr)
            bar.update()
            last = step + 1 == len(sizes)
            stopping = agreed(bool(stop.received)) and not last
            if stopping or (solver.SAVE_EVERY and (step + 1) % solver.SAVE_EVERY == 0 and not last):
                self._collect(fresh, epoch, lr)
                self.steps = step + 1
                start = self._tick(start)
                fresh = []
                self.save()
            if stopping:
                agreed.settle()
                self._stop(stop)
        agreed.settle()
        self._collect(fresh, epoch, lr)
        self._tick(start)
        return lr

    def _batch_sizes(self, epoch: int) -> list[int]:
        """Images in each step of an epoch."""
        return self.loader.batch_sizes[: self.schedule.steps(epoch)]

    def _tick(self, start: float) -> float:
        """Count the time since ``start``; returns the current time."""
        now = time.perf_counter()
        self.epoch_seconds += now - start
        self.seconds["train"] += now - start
        return now

    def _collect(self, fresh: list[Tensor], epoch: int, lr: float) -> None:
        """Append the losses of some steps, summed over all processes."""
        if fresh:
            losses = distributed.add_up(torch.stack(fresh).float()).cpu()
            self._check_finite(losses, epoch, len(self.losses), lr)
            self.losses = torch.cat((self.losses, losses))

    def _mean_loss(self) -> float:
        """The mean loss per image of the current epoch."""
        weights = torch.tensor(self._batch_sizes(len(self.rows)), dtype=torch.float64)
        return (self.losses.double() @ weights / weights.sum()).item()

    def _validate(self, epoch: int) -> dict:
        """Validation metrics for the epoch's row, if there is val and EVAL_EVERY is due; keeps the best state."""
        every = self.solver.EVAL_EVERY
        if self.val is None or not (epoch + 1 == self.epochs or (every and (epoch + 1) % every == 0)):
            return {}
        start = time.perf_counter()
        with self._averaged():
            metrics = self._measure(self.val)
            if metrics.top1 > self.best["top1"]:
                state = copy_of_tuned(self.model) if self.stops_early else None
                self.best = {"epoch": epoch, "top1": metrics.top1, "state": state}
        self.seconds["validate"] += time.perf_counter() - start
        self.epoch_seconds += time.perf_counter() - start
        return {f"val_{name}": value for name, value in metrics.as_dict().items()}

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the model has the weights to be tested: with SOLVER.EMA, the average."""
        if self.average:
            self.average.swap()
        try:
            yield
        finally:
            if self.average:
                self.average.swap()

    def _test(self) -> dict:
        """Test metrics for the epoch's row with BEST_TEST_EPOCH; training never uses them."""
        if self.test is None:
            return {}
        start = time.perf_counter()
        with self._averaged():
            metrics = self._measure(self.test)
        self.seconds["test_epochs"] = self.seconds.get("test_epochs", 0.0) + time.perf_counter() - start
        self.epoch_seconds += time.perf_counter() - start
        return {f"test_{name}": value for name, value in metrics.as_dict().items()}

    def _measure(self, loader: Loader) -> Metrics:
        try:
            return evaluate(self.network, loader, autocast(self.cfg, self.device), padded=self.cfg.MODEL.COMPILE)
        except BrokenModel as error:  # during training this means divergence
            raise NonFiniteLoss(str(error)) from error

    def finish(self) -> dict:
        """Leave the model with the weights to be tested; returns the training part of the result."""
        used = self.rows[-1]
        if self.stops_early:
            put_back(self.model, self.best["state"])
            used = self.rows[self.best["epoch"]]
        elif self.average:
            self.average.swap()
        images = sum(sum(self._batch_sizes(epoch)) for epoch in range(len(self.rows)))
        images -= self.loader.batch_sizes[0]  # without the first step
        seconds = self.seconds["train"] - self.seconds["first_step"]
        return {
            "epochs": len(self.rows),
            "steps": sum(self.schedule.steps(epoch) for epoch in range(len(self.rows))),
            "epoch_used": used["epoch"],
            "train_loss": used["loss"],
            "rows": self.rows,
            "val": {name.removeprefix("val_"): value for name, value in used.items() if name.startswith("val_")}
            or None,
            "train_images_per_second": images / seconds if images and seconds > 0 else None,
            "seconds": self.seconds,
        }

    # --- reporting

    @staticmethod
    def _check_finite(losses: list[Tensor] | Tensor, epoch: int, first_step: int, lr: float) -> None:
        for step, value in enumerate(torch.stack(list(losses)).tolist(), start=first_step):
            if not math.isfinite(value):
                raise NonFiniteLoss(
                    f"the loss is {value} in epoch {epoch + 1}, step {step + 1}, with learning rate {lr:.3g}. Try a "
                    "smaller SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCH, SOLVER.CLIP_GRAD 1.0, or SOLVER.AMP off"
                )

    def _report(self, row: dict) -> None:
        """Log the epoch with the estimated time left, and send its row to the trackers.

        With more than 100 epochs, only some are logged.
        """
        seen = "".join(
            f" {name} {100 * row[f'{name}_top1']:.2f} %" for name in ("val", "test") if f"{name}_top1" in row
        )
        line = f"epoch {row['epoch']}/{self.epochs} loss {row['loss']:.4g} lr {row['lr']:.3g}{seen}"
        left = tqdm.format_interval((self.epochs - row["epoch"]) * row["seconds"])
        if row["epoch"] % max(1, self.epochs // 100) == 0 or row["epoch"] == self.epochs:
            logger.info("%s %.1f s, %s left", line, row["seconds"], left)
        if self.trackers:
            self.trackers.epoch(row)

    @contextmanager
    def _progress_bar(self) -> Iterator[tqdm]:
        """A bar over all steps of the run with the time left; without a terminal, an occasional line."""
        every = 0.2 if sys.stderr.isatty() else 10
        done = len(self.rows) * len(self.loader) + self.steps
        settings = dict(total=self.schedule.total_steps, initial=done, mininterval=every, dynamic_ncols=True)
        with tqdm(desc="training", unit="step", leave=False, **settings) as bar:
            yield bar
