"""Accuracy along the line from the pre-trained model to a tuned one (WiSE: Wortsman et al., 2022, arXiv:2109.01903)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...data.sources.base import DataError
from ...engine.checkpoint import hash_of
from ...engine.evaluator import Accuracy, accuracy
from ...engine.zero_shot import zero_shot_head
from ...models.wise import between
from ..finished.run import FinishedRun
from ..finished.sets import TestSet, own_set


@dataclass(frozen=True)
class Curve:
    """One run's accuracies at each alpha.

    Attributes:
        head: the origin of the head at alpha 0: "zero-shot", "the run <folder>", or "" if it stays tuned.
        tested: set -> accuracies at each alpha; the first set is the run's own.
        validated: accuracies on the run's validation images; None if it trained on them or has none.
    """

    run: FinishedRun
    head: str
    alphas: tuple[float, ...]
    tested: dict[str, list[Accuracy]]
    validated: list[Accuracy] | None

    @property
    def own(self) -> list[float]:
        """Top-1 on the run's own test set."""
        return [at.top1 for at in next(iter(self.tested.values()))]

    @property
    def shifted(self) -> list[float] | None:
        """Mean top-1 of the other sets, each counting once; None if there are none."""
        others = list(self.tested.values())[1:]
        return [sum(m.top1 for m in at) / len(others) for at in zip(*others, strict=True)] if others else None

    @property
    def chosen(self) -> int | None:
        """The index of the best alpha on validation images, the smallest of ties; None without such images."""
        if self.validated is None:
            return None
        return int(np.argmax([at.top1 for at in self.validated]))

    @property
    def area(self) -> float | None:
        """The area that own and shifted accuracy dominate together: everything below and to the left of any point
        (own, shifted). 1 means perfect on both."""
        return None if self.shifted is None else dominated(list(zip(self.own, self.shifted, strict=True)))

    @property
    def own_at_start_shift(self) -> float | None:
        """The highest own accuracy of all alphas that are at least as good on the shifted sets as alpha 0."""
        if self.shifted is None or self.alphas[0] != 0:
            return None
        return max(own for own, shifted in zip(self.own, self.shifted, strict=True) if shifted >= self.shifted[0])


def curve(
    run: FinishedRun, sets: Sequence[TestSet], alphas: Sequence[float], start: FinishedRun | None, head_only: bool
) -> Curve:
    """Measure ``run`` at every alpha, on every set and on its validation images.

    Args:
        start: a run with a linear head on the unchanged ViT; its head is used at alpha 0.
        head_only: interpolate only the head; the ViT stays tuned.

    Raises:
        ValueError: ``start`` does not fit, or ``head_only`` is set without a head to start from.
    """
    before, head = start_of(run, start)
    if head_only and not head:
        raise ValueError(
            f"{run.folder.path} started from a random head: with --head-only, --start must name a run of linear probing"
        )
    facts = {"start": hash_of(before), "head_only": head_only}
    named = {test_set.name: test_set for test_set in sets}
    validation = _validation(run)

    def measured(test_set: TestSet, alpha: float) -> Accuracy:
        with between(run.model, before, 1.0 if head_only else alpha, alpha) as network:
            name = f"{test_set.name} at alpha {alpha:g}"
            best = run.best_classes(test_set.loader, name, test_set.classes, facts | {"alpha": alpha}, network)
        return accuracy(best, test_set.loader.labels)

    tested = {name: [measured(test_set, alpha) for alpha in alphas] for name, test_set in named.items()}
    validated = [measured(validation, alpha) for alpha in alphas] if validation else None
    return Curve(run, head, tuple(alphas), tested, validated)


def start_of(run: FinishedRun, start: FinishedRun | None = None) -> tuple[dict[str, Tensor], str]:
    """The pre-trained values of a run's trained parameters, and the origin of those of its head.

    These cover the ViT's own trained weights and the head: the zero-shot head if the run started from one, else the
    head of the run ``start``, else none, because a randomly initialised head knows nothing.

    Raises:
        ValueError: ``start`` is not a linear probe of the same backbone and classes.
    """
    cfg, model = run.cfg, run.model
    untouched = dict(run.pre_trained().named_parameters())
    values = {f"vit.{name}": untouched[name].detach() for name, p in model.vit.named_parameters() if p.requires_grad}
    if start is not None:
        values |= _head_of(start, run)
        return _like(values, model), f"the run {start.folder.path}"
    if cfg.MODEL.HEAD_INIT == "zero_shot":
        head = zero_shot_head(cfg, run.class_names, run.device)
        return _like(values | {f"head.{name}": value for name, value in head.items()}, model), "zero-shot"
    return _like(values, model), ""


def _like(values: dict[str, Tensor], model: torch.nn.Module) -> dict[str, Tensor]:
    own = dict(model.named_parameters())
    return {name: value.detach().to(own[name]) for name, value in values.items()}


def _head_of(start: FinishedRun, run: FinishedRun) -> dict[str, Tensor]:
    """A linear probe's head, padded for ``run``: features added by its methods get weight zero."""
    where = start.folder.path
    if start.cfg.DATA.FEATURE != run.cfg.DATA.FEATURE or start.class_names != run.class_names:
        raise ValueError(f"--start {where} has another backbone or other classes than {run.folder.path}")
    if start.model.methods or any(param.requires_grad for param in start.model.vit.parameters()):
        raise ValueError(
            f"--start {where} tuned more than its head: alpha 0 needs the pre-trained ViT with a trained head"
        )
    ours, theirs = run.model.head.state_dict(), start.model.head.state_dict()
    if ours.keys() != theirs.keys() or len(ours) != len(list(run.model.head.parameters())):
        raise ValueError(f"--start {where} and {run.folder.path} have heads of different kinds, or with batch norms")
    padded = {}
    for name, value in theirs.items():
        padded[name] = torch.zeros_like(ours[name])
        padded[name][tuple(slice(side) for side in value.shape)] = value
    return {f"head.{name}": value for name, value in padded.items()}


def _validation(run: FinishedRun) -> TestSet | None:
    try:
        return own_set(run, "val")
    except DataError:
        return None


def dominated(points: Sequence[tuple[float, float]]) -> float:
    """The area of the first quadrant that lies below and to the left of any of the points."""
    area, height = 0.0, 0.0
    for x, y in sorted(points, reverse=True):  # from the right: each point adds what rises above the earlier ones
        if y > height:
            area += x * (y - height)
            height = y
    return area
