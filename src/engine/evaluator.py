"""Accuracy of a model on a split, counted exactly."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ..data.loader import Loader


@dataclass(frozen=True)
class Metrics:
    """Fractions in [0, 1] over ``images`` images; ``mean_per_class`` averages over the classes that occur."""

    top1: float
    top5: float
    mean_per_class: float
    loss: float
    images: int

    def as_dict(self) -> dict:
        return asdict(self)


@torch.inference_mode()
def predict(model: nn.Module, loader: Loader, autocast: torch.autocast) -> tuple[Tensor, Tensor]:
    """Float32 logits (N, C) and labels (N,) of a whole split, in its order, on the CPU; the model ends in eval mode."""
    model.eval()
    logits, labels = [], []
    for images, targets in loader:
        with autocast:
            logits.append(model(images).float())
        labels.append(targets)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def evaluate(model: nn.Module, loader: Loader, autocast: torch.autocast) -> Metrics:
    """Top-1, top-5 (of as many classes as there are), mean per class and mean cross-entropy of a split."""
    return measure(*predict(model, loader, autocast))


def measure(logits: Tensor, labels: Tensor) -> Metrics:
    """The metrics of logits (N, C) against labels (N,)."""
    top = logits.topk(min(5, logits.shape[-1])).indices == labels[:, None]
    right = top[:, 0].double()
    per_class = torch.stack([right[labels == c].mean() for c in labels.unique()])
    return Metrics(
        top1=right.mean().item(),
        top5=top.any(1).double().mean().item(),
        mean_per_class=per_class.mean().item(),
        loss=nn.functional.cross_entropy(logits, labels).item(),
        images=len(labels),
    )
