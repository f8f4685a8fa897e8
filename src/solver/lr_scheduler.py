"""Learning rate over time: linear warm-up, then half a cosine, as VPT has it."""

import math


def learning_rate(kind: str, base_lr: float, warmup: float, total: float, epoch: float) -> float:
    """The learning rate at ``epoch``, which counts from 0 and may be a fraction.

    During warm-up base_lr * epoch / warmup, then base_lr * (1 + cos(pi t)) / 2 with t from 0 towards 1 ("cosine") or
    base_lr ("constant"). Asked once per epoch, as VPT does, epoch 0 of a warm-up trains with learning rate 0.
    """
    if epoch < warmup:
        return base_lr * epoch / max(1, warmup)
    if kind == "constant":
        return base_lr
    progress = (epoch - warmup) / max(1, total - warmup)
    return base_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
