"""Accuracy of a model on a split; every image counts exactly once."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ..data.loader import Loader
from ..utils import distributed

# The metric that papers report for a task (Task.metric) -> its name in ``Metrics``.
METRICS = {"top-1": "top1", "top-5": "top5", "mean per class": "mean_per_class"}


class BrokenModel(ValueError):
    """The model's outputs are NaN or infinite."""


@dataclass(frozen=True)
class Accuracy:
    """Fractions in [0, 1] over ``images`` images; ``mean_per_class`` averages over the classes that occur."""

    top1: float
    top5: float
    mean_per_class: float
    images: int

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Metrics(Accuracy):
    """``Accuracy`` with the mean cross-entropy."""

    loss: float


@torch.inference_mode()
def predict(model: nn.Module, loader: Loader, autocast: torch.autocast, padded: bool = False) -> tuple[Tensor, Tensor]:
    """Float32 logits (N, C) and labels (N,) of a whole split, in its order, on the CPU; the model ends in eval mode.

    Several processes share the work: each image is computed by one of them, and all get all results.

    Args:
        padded: pad the last batch to full size, so that a compiled model sees only one size.
    """
    model.eval()
    logits, labels = [], []
    for images, targets in loader.in_order(distributed.part()):
        count = len(images)
        if padded and count < loader.batch_size:
            images = torch.cat((images, images[-1:].expand(loader.batch_size - count, *images.shape[1:])))
        with autocast:
            logits.append(model(images)[:count].float().clone())  # the next call of a CUDA graph overwrites its output
        labels.append(targets)
    if distributed.count() > 1:
        for _ in range(len(logits), _most_batches(loader)):  # a sharded model needs all processes in each forward pass
            with autocast:
                model(next(iter(loader.in_order()))[0])
    mine = (torch.cat(logits).cpu(), torch.cat(labels).cpu()) if logits else None
    parts = [part for part in distributed.gather(mine) if part is not None]
    return tuple(distributed.interleave([part[i] for part in parts]) for i in (0, 1))


def require_numbers(logits: Tensor, of: str) -> Tensor:
    """Return ``logits``, unless some are NaN or infinite.

    Args:
        of: the inputs, for the message.

    Raises:
        BrokenModel: some are.
    """
    if not logits.isfinite().all():
        raise BrokenModel(
            f"the model is broken: its outputs for {of} contain NaN or infinity. Its weights are "
            "damaged, or values overflow in half precision: try SOLVER.AMP off"
        )
    return logits


def _most_batches(loader: Loader) -> int:
    """The largest number of batches of any process."""
    most = -(-len(loader.labels) // distributed.count())
    return -(-most // loader.batch_size)


def evaluate(model: nn.Module, loader: Loader, autocast: torch.autocast, padded: bool = False) -> Metrics:
    """Top-1, top-5 (or fewer if there are fewer classes), mean per class and mean cross-entropy on a split."""
    return measure(*predict(model, loader, autocast, padded))


def measure(logits: Tensor, labels: Tensor, classes: Tensor | None = None) -> Metrics:
    """The metrics of logits (N, C) against labels (N,).

    Args:
        classes: sorted labels of the classes that can occur; the other logits are ignored, as for ImageNet-R
            and -A (Hendrycks et al., 2021, arXiv:2006.16241 and arXiv:1907.07174).

    Raises:
        BrokenModel: logits are NaN or infinite.
    """
    require_numbers(logits, "these images")
    if classes is not None:
        logits, labels = logits[:, classes], torch.searchsorted(classes, labels)
    loss = nn.functional.cross_entropy(logits, labels).item()
    return Metrics(**accuracy(best_classes(logits), labels).as_dict(), loss=loss)


def best_test_epoch(rows: list[dict], metric: str) -> dict | None:
    """The test metrics of the epoch with the best ``metric`` on the test set; None if epochs were not tested.

    Many papers report it. Chosen on the test set, it is too high, so it is used only in table columns labelled as such.

    Args:
        rows: of metrics.jsonl, with "test_..." if the epoch was tested.
    """
    tested = [row for row in rows if f"test_{METRICS[metric]}" in row]
    if not tested:
        return None
    best = max(tested, key=lambda row: row[f"test_{METRICS[metric]}"])  # the first if several are equal
    metrics = {name.removeprefix("test_"): value for name, value in best.items() if name.startswith("test_")}
    return {"epoch": best["epoch"], "note": "chosen on the test set, to compare with papers that print it"} | metrics


def best_classes(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """The five best classes of each image, or fewer if there are fewer: (N, C) -> (N, 5) labels, best first.

    Args:
        classes: the classes that can occur, see ``measure``.
    """
    if classes is None:
        return logits.topk(min(5, logits.shape[-1])).indices
    return classes[best_classes(logits[:, classes])]


def accuracy(best: Tensor, labels: Tensor) -> Accuracy:
    """Of ``best_classes`` (N, 5) against labels (N,)."""
    top = best == labels[:, None]
    right = top[:, 0].double()
    per_class = torch.stack([right[labels == c].mean() for c in labels.unique()])
    return Accuracy(right.mean().item(), top.any(1).double().mean().item(), per_class.mean().item(), len(labels))
