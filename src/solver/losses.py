"""Losses normalised as in VPT: a sum over the batch divided by its size, regardless of class weights."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class SoftmaxLoss:
    """sum_i weight[y_i] * cross_entropy_i / B. logits (B, C), targets (B,) -> scalar.

    torch's weighted mean divides by the sum of the weights instead.
    """

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0):
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(
            logits, targets, self.class_weights, reduction="none", label_smoothing=self.label_smoothing
        )
        return losses.sum() / len(targets)


class SigmoidLoss:
    """Binary cross-entropy of every class, summed, / B. targets: (B,) class indices or (B, C) of ones and zeros."""

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0):
        if label_smoothing:
            raise ValueError("label smoothing is for the softmax loss")
        self.class_weights = class_weights

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if targets.ndim == 1:
            targets = F.one_hot(targets, logits.shape[-1])
        losses = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), self.class_weights, reduction="none"
        )
        return losses.sum() / len(targets)


Loss = Callable[[Tensor, Tensor], Tensor]

# SOLVER.LOSS -> its builder, which takes class weights and label smoothing.
LOSSES: dict[str, Callable[[Tensor | None, float], Loss]] = {"softmax": SoftmaxLoss, "sigmoid": SigmoidLoss}

# DATA.CLASS_WEIGHTS_TYPE -> a class's weight is its number of images to this power; None: equal weights.
CLASS_WEIGHTS: dict[str, float | None] = {"none": None, "inv": -1.0, "inv_sqrt": -0.5}


def class_weights(labels: np.ndarray, num_classes: int, kind: str) -> Tensor | None:
    """One weight per class, with mean one: "inv" ~ 1 / images, "inv_sqrt" ~ 1 / sqrt(images); None for "none".

    VPT counts the set of labels instead of the labels, so its weights are always one. A class without images has weight
    zero.
    """
    if (power := CLASS_WEIGHTS[kind]) is None:
        return None
    counts = np.bincount(labels, minlength=num_classes).astype(float)
    weights = np.power(counts, power, out=np.zeros_like(counts), where=counts > 0)
    return torch.from_numpy(weights / weights.sum() * num_classes).float()


def build_loss(kind: str, weights: Tensor | None, label_smoothing: float) -> Loss:
    """``SOLVER.LOSS`` by name."""
    return LOSSES[kind](weights, label_smoothing)
