"""Training: epochs over a loader, one clear line each, resumable after every one of them. Reads top to bottom."""

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..data.loader import Loader
from ..models.vit_models import TunedViT
from ..solver.losses import build_loss, class_weights
from ..solver.lr_scheduler import learning_rate
from ..solver.optimizer import build_optimizer, set_learning_rate
from ..utils.io import write_json_lines
from .checkpoint import copy_of_tuned, load_last, save_last
from .evaluator import evaluate
from .features import reuse_features
from .results import RunFolder

logger = logging.getLogger(__name__)


class NonFiniteLoss(FloatingPointError):
    """The loss became infinite or not a number; the message says where and what to try."""


def train(cfg: CfgNode, model: TunedViT, loaders: dict[str, Loader], run: RunFolder) -> dict:
    """Train ``model`` on ``loaders["train"]`` and leave it with the weights to be tested.

    Those are the last epoch's; with early stopping (validation images that are not trained on, and PATIENCE less than
    the number of epochs) the best epoch's. Goes on from ``run.last`` if it is there. Never touches the test set.

    Returns:
        what the result says of training: epochs, the best epoch and its validation metrics, seconds.

    Raises:
        NonFiniteLoss: the loss is infinite or not a number.
    """
    solver, loader, val = cfg.SOLVER, loaders["train"], loaders.get("val")
    device = loader.device
    weights = class_weights(loader.labels.numpy(), model.head.last_layer.out_features, cfg.DATA.CLASS_WEIGHTS_TYPE)
    loss_of = build_loss(solver.LOSS, None if weights is None else weights.to(device), solver.LABEL_SMOOTHING)
    optimizer = build_optimizer(model.named_parameters(), solver)
    epochs = min(solver.SEARCH_EPOCH or solver.TOTAL_EPOCH, solver.TOTAL_EPOCH)
    stops_early = val is not None and epochs > solver.PATIENCE

    rows, seconds, best = [], 0.0, {"epoch": -1, "top1": -1.0, "state": None}
    if run.last.is_file():
        progress = load_last(run.last, model, optimizer)
        rows, seconds, best = progress["rows"], progress["seconds"], progress["best"]
        logger.info("resuming after epoch %d/%d", len(rows), epochs)

    start = time.perf_counter()
    network, loader, val = reuse_features(cfg, model, loaders, autocast(cfg, device))
    seconds += time.perf_counter() - start
    with _tensorboard(run, len(rows)) as board, _progress_bar(epochs, len(loader), len(rows)) as bar:
        for epoch in range(len(rows), epochs):
            if stops_early and epoch - 1 - best["epoch"] >= solver.PATIENCE:
                logger.info("no better validation accuracy for %d epochs: stopping", solver.PATIENCE)
                break
            start = time.perf_counter()
            loss, lr = _train_epoch(cfg, network, loader, optimizer, loss_of, epoch, bar)
            row = {"epoch": epoch + 1, "loss": loss, "lr": lr}
            if val is not None:
                metrics = evaluate(network, val, autocast(cfg, device)).as_dict()
                row |= {f"val_{name}": value for name, value in metrics.items()}
                if row["val_top1"] > best["top1"]:
                    state = copy_of_tuned(model) if stops_early else None
                    best = {"epoch": epoch, "top1": row["val_top1"], "state": state}
            row["seconds"] = time.perf_counter() - start
            seconds += row["seconds"]
            rows.append(row)
            _report(row, epochs, (epochs - epoch - 1) * row["seconds"], board)
            write_json_lines(run.metrics, rows)
            if cfg.MODEL.SAVE_CKPT:
                save_last(run.last, model, optimizer, {"rows": rows, "seconds": seconds, "best": best})

    used = rows[-1]
    if stops_early:
        model.load_tuned_state_dict(best["state"])
        used = rows[best["epoch"]]
    return {
        "epochs": len(rows),
        "epoch_used": used["epoch"],
        "train_loss": used["loss"],
        "val": {name.removeprefix("val_"): value for name, value in used.items() if name.startswith("val_")} or None,
        "train_seconds": seconds,
    }


def _train_epoch(cfg, model, loader, optimizer, loss_of, epoch: int, bar: tqdm) -> tuple[float, float]:
    """One pass over the training images; the mean loss per image and the last step's learning rate."""
    model.train()
    solver, steps = cfg.SOLVER, len(loader)
    losses, sizes, lr = [], [], 0.0
    for step, (images, targets) in enumerate(loader.epoch(epoch)):
        at = epoch if solver.SCHEDULE_PER == "epoch" else epoch + (step + 0.5) / steps
        lr = learning_rate(solver.SCHEDULER, solver.BASE_LR, solver.WARMUP_EPOCH, solver.TOTAL_EPOCH, at)
        set_learning_rate(optimizer, lr)
        losses.append(_step(cfg, model, images, targets, optimizer, loss_of))
        sizes.append(len(targets))
        bar.update()
        if images.device.type == "cpu":  # on a GPU, looking at the loss would make it wait
            _check_finite(losses[-1:], epoch, step, lr)
    _check_finite(losses, epoch, 0, lr)
    weights = torch.tensor(sizes, dtype=torch.float64)
    return (torch.stack(losses).double().cpu() @ weights / weights.sum()).item(), lr


def _step(cfg, model, images: Tensor, targets: Tensor, optimizer, loss_of) -> Tensor:
    """One optimizer step on one batch, computed in ACCUMULATE pieces; the batch's mean loss, still on the device."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=images.device)
    count = max(1, min(cfg.SOLVER.ACCUMULATE, len(targets) // 2))  # no piece of a single image, as in split_batches
    for some_images, some_targets in zip(images.tensor_split(count), targets.tensor_split(count), strict=True):
        with autocast(cfg, images.device):
            logits = model(some_images)
        loss = loss_of(logits.float(), some_targets) * (len(some_targets) / len(targets))
        loss.backward()
        total += loss.detach()
    if cfg.SOLVER.CLIP_GRAD:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, cfg.SOLVER.CLIP_GRAD)
    optimizer.step()
    return total


def autocast(cfg: CfgNode, device: torch.device) -> torch.autocast:
    """The precision of ``SOLVER.AMP``, as a context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=cfg.SOLVER.AMP == "bf16")


def _check_finite(losses: list[Tensor], epoch: int, first_step: int, lr: float) -> None:
    values = torch.stack(losses).tolist()
    for step, value in enumerate(values, start=first_step):
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"the loss is {value} in epoch {epoch + 1}, step {step + 1}, with learning rate {lr:.3g}. Try a "
                "smaller SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCH, SOLVER.CLIP_GRAD 1.0, or SOLVER.AMP off"
            )


def _report(row: dict, epochs: int, left: float, board: SummaryWriter) -> None:
    """The epoch's line, with the seconds that are left, and the same numbers for TensorBoard."""
    val = f" val {100 * row['val_top1']:.2f} %" if "val_top1" in row else ""
    said = f"epoch {row['epoch']}/{epochs} loss {row['loss']:.4g} lr {row['lr']:.3g}{val} {row['seconds']:.1f} s"
    logger.info("%s, %s left", said, tqdm.format_interval(left))
    for name, value in row.items():
        if name != "epoch":
            board.add_scalar(name, value, row["epoch"])


@contextmanager
def _tensorboard(run: RunFolder, done: int) -> Iterator[SummaryWriter]:
    """TensorBoard events in the run's folder; those after the last finished epoch are taken back on resuming."""
    with SummaryWriter(str(run.path), purge_step=done + 1 if done else None) as board:
        yield board


@contextmanager
def _progress_bar(epochs: int, steps: int, done: int) -> Iterator[tqdm]:
    """A bar over all steps of the run, with the time that is left; now and then a line where there is no terminal."""
    every = 0.2 if sys.stderr.isatty() else 10
    settings = dict(total=epochs * steps, initial=done * steps, mininterval=every, dynamic_ncols=True)
    with tqdm(desc="training", unit="step", leave=False, **settings) as bar:
        yield bar
