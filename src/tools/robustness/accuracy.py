"""Accuracy of runs on their own test set and on shifted ones, also for the zero-shot models they started from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from ...engine.checkpoint import hash_of
from ...engine.evaluator import Accuracy, accuracy
from ...models.wise import between
from ..finished.run import FinishedRun, groups
from ..finished.sets import TestSet
from ..report.stats import wilson
from ..wise.curve import start_of


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed; or, without ``runs``, a zero-shot model.

    Attributes:
        results: per run, set -> accuracy; the first set is its own.
    """

    label: str
    runs: list[FinishedRun]
    results: list[dict[str, Accuracy]] = field(default_factory=list)

    @property
    def accuracies(self) -> dict[str, list[float]]:
        """Set -> top-1 of every run."""
        return {name: [row[name].top1 for row in self.results] for name in self.results[0]}

    @property
    def own(self) -> list[float]:
        return next(iter(self.accuracies.values()))

    @property
    def shifted(self) -> list[float]:
        """Mean top-1 over the other sets, for every run."""
        _, *others = self.accuracies.values()
        return [sum(at) / len(others) for at in zip(*others, strict=True)]


def measure_all(runs: Sequence[FinishedRun], sets_of: dict[str, list[TestSet]]) -> list[Row]:
    """A row per group of runs, then one per zero-shot model that runs started from.

    Args:
        sets_of: a run's label -> its test sets.
    """
    rows, zero_shot = [], {}
    for label, some in groups(runs).items():
        row = Row(label, some)
        for run in some:
            sets = sets_of[run.label]
            row.results.append({test_set.name: _measured(run, test_set) for test_set in sets})
            if run.cfg.MODEL.HEAD_INIT == "zero_shot":
                start, _ = start_of(run)
                key = run.cfg.DATA.FEATURE, hash_of({k: v for k, v in start.items() if k.startswith("head.")})
                if key not in zero_shot:
                    with between(run.model, start, 0.0) as network:
                        facts = {"start": hash_of(start)}
                        accuracies = {test_set.name: _measured(run, test_set, facts, network) for test_set in sets}
                    zero_shot[key] = Row("zero-shot", [], [accuracies])
        rows.append(row)
    return [*rows, *zero_shot.values()]


def _measured(
    run: FinishedRun, test_set: TestSet, facts: dict | None = None, network: nn.Module | None = None
) -> Accuracy:
    best = run.best_classes(test_set.loader, test_set.name, test_set.classes, facts, network)
    return accuracy(best, test_set.loader.labels)


def interval(result: Accuracy) -> tuple[float, float]:
    """Wilson's 95 % interval of top-1, over test images (Wilson, 1927)."""
    return wilson(result.top1, result.images)
