"""Accuracy of runs on their own test set and on shifted ones, and of the zero-shot models that they started from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...engine.checkpoint import hash_of
from ...engine.evaluator import Accuracy, accuracy
from ...models.wise import between
from ..finished.run import FinishedRun, groups
from ..finished.sets import TestSet
from ..report.stats import wilson
from ..wise.curve import start_of


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone; or, with no ``runs``, a zero-shot model.

    Attributes:
        found: for each run set -> accuracy; the first set is its own.
    """

    label: str
    runs: list[FinishedRun]
    found: list[dict[str, Accuracy]] = field(default_factory=list)

    @property
    def accuracies(self) -> dict[str, list[float]]:
        """Set -> top-1 of every run."""
        return {name: [one[name].top1 for one in self.found] for name in self.found[0]}

    @property
    def own(self) -> list[float]:
        return next(iter(self.accuracies.values()))

    @property
    def shifted(self) -> list[float]:
        """Mean top-1 of the other sets, each counting once, of every run."""
        _, *others = self.accuracies.values()
        return [sum(at) / len(others) for at in zip(*others, strict=True)]


def measure_all(runs: Sequence[FinishedRun], sets_of: dict[str, list[TestSet]]) -> list[Row]:
    """A row for every group of runs, then one for every zero-shot model among their starts.

    Args:
        sets_of: a run's label -> its test sets.
    """
    rows, zero_shot = [], {}
    for label, some in groups(runs).items():
        row = Row(label, some)
        for run in some:
            sets = sets_of[run.label]
            row.found.append({one.name: _measured(run, one) for one in sets})
            if run.cfg.MODEL.HEAD_INIT == "zero_shot":
                start, _ = start_of(run)
                key = run.cfg.DATA.FEATURE, hash_of({k: v for k, v in start.items() if k.startswith("head.")})
                if key not in zero_shot:
                    with between(run.model, start, 0.0):
                        found = {one.name: _measured(run, one, {"start": hash_of(start)}) for one in sets}
                    zero_shot[key] = Row("zero-shot", [], [found])
        rows.append(row)
    return [*rows, *zero_shot.values()]


def _measured(run: FinishedRun, one: TestSet, facts: dict | None = None) -> Accuracy:
    return accuracy(run.best_classes(one.loader, one.name, one.classes, facts), one.loader.labels)


def interval(found: Accuracy) -> tuple[float, float]:
    """Wilson's 95 % interval of top-1, over test images (Wilson, 1927)."""
    return wilson(found.top1, found.images)
