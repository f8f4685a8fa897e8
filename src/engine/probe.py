"""Linear probing: a logistic regression on frozen features, its penalty selected on held-out training images."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.sources.base import stratified
from ..utils.progress import tqdm
from .evaluator import measure

PENALTIES = tuple(10.0**power for power in range(1, -7, -1))  # strong to weak: each fit starts from the previous one
HELD_OUT = 0.2  # of the training images
STEPS, LAST_STEPS = 100, 500  # maximum L-BFGS steps: for comparing penalties, and for the final fit
ROWS = 2**16  # feature rows per matrix product


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int) -> dict:
    """Top-1 and top-5 on test features (M, D) of a classifier fitted to train features (N, D).

    Features are standardised with the training statistics. The penalty is the one of PENALTIES with the best top-1 on a
    stratified fifth of the training images; the classifier is then fitted to all of them. Deterministic.
    """
    mean, std = train.mean(0), train.std(0)
    scale = torch.where(std > 1e-6 * std.max().clamp(min=1e-12), std, torch.inf)  # ignore constant features
    train, test = (train - mean) / scale, (test - mean) / scale
    held = held_out(train_labels)
    with tqdm(desc="linear probe", total=len(PENALTIES) + 1, unit="fit", delay=1, leave=False) as bar:
        best = -1.0
        penalty = 0.0
        weight = train.new_zeros(num_classes, train.shape[1] + 1)
        for tried in PENALTIES:
            weight = fit(train[~held], train_labels[~held], tried, weight, STEPS)
            right = measure(logits(weight, train[held]), train_labels[held]).top1
            best, penalty = (right, tried) if right > best else (best, penalty)  # the strongest of equally good ones
            bar.update()
            if tried < penalty / 500:  # three weaker ones were not better, and weaker ones are slower
                break
        weight = fit(train, train_labels, penalty, weight, LAST_STEPS)
        bar.update()
    metrics = measure(logits(weight, test), test_labels)
    return {"top1": metrics.top1, "top5": metrics.top5, "penalty": penalty, "held_out_top1": best}


def held_out(labels: Tensor) -> Tensor:
    """The images that judge penalties: (N,) bool, a stratified share HELD_OUT."""
    held = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    held[stratified(labels.cpu().numpy(), max(1, round(HELD_OUT * len(labels))), seed=0)] = True
    return held


def fit(features: Tensor, labels: Tensor, penalty: float, start: Tensor, steps: int) -> Tensor:
    """The weights (num_classes, D + 1) that minimise mean cross-entropy + penalty / 2 * |W|^2, by L-BFGS.

    The last column is the bias, which is not penalised.
    """
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = penalty / 2 * weight[:, :-1].square().sum()
        loss.backward()
        for some, theirs in zip(features.split(ROWS), labels.split(ROWS), strict=True):
            part = F.cross_entropy(logits(weight, some), theirs, reduction="sum") / len(features)
            part.backward()
            loss = loss.detach() + part.detach()
        return loss

    optimizer.step(closure)
    return weight.detach()


def logits(weight: Tensor, features: Tensor) -> Tensor:
    """(B, D) -> (B, num_classes)."""
    return F.linear(features, weight[:, :-1], weight[:, -1])
