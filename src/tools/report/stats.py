"""Means with their spread and interval over seeds, paired tests over tasks with Holm's correction, average ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST_TASKS = 6  # with five, the smallest two-sided p value of Wilcoxon's test is 2 / 2**5 = 0.0625

RULES = (
    "A cell is the mean over seeds; ± is the sample standard deviation over seeds, the interval is the 95 % confidence "
    "interval of the mean (Student's t). A mean over tasks is given only if every task has a result. If all tasks have "
    "the same seeds, its standard deviation and interval are computed over seeds from each seed's mean over tasks. "
    "Otherwise tasks are treated as independent: the squares of weight times standard deviation (for the interval: "
    "standard error, with Welch-Satterthwaite degrees of freedom) add up."
)


@dataclass(frozen=True)
class Summary:
    """Fractions: mean, sample standard deviation and half of the 95 % interval (None for a single value), and n."""

    mean: float
    sd: float | None
    half: float | None
    n: int

    @property
    def low(self) -> float | None:
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        return None if self.half is None else self.mean + self.half


def summarise(values: Sequence[float]) -> Summary:
    """The summary of one value per seed."""
    n = len(values)
    if n < 2:
        return Summary(float(values[0]), None, None, n)
    sd = float(np.std(values, ddof=1))
    return Summary(float(np.mean(values)), sd, _t(n - 1) * sd / math.sqrt(n), n)


def weighted(cells: Sequence[dict[str, float]], weights: Sequence[float]) -> Summary:
    """The summary of a weighted sum of tasks, by RULES; ``cells``: seed -> value for each task."""
    seeds = cells[0].keys()
    if all(cell.keys() == seeds for cell in cells):
        return summarise([sum(w * cell[seed] for w, cell in zip(weights, cells, strict=True)) for seed in seeds])
    parts = [summarise(list(cell.values())) for cell in cells]
    mean = sum(w * part.mean for w, part in zip(weights, parts, strict=True))
    n = min(part.n for part in parts)
    if n < 2:
        return Summary(mean, None, None, n)
    variances = [(w * part.sd) ** 2 for w, part in zip(weights, parts, strict=True)]
    errors = [v / part.n for v, part in zip(variances, parts, strict=True)]
    freedom = sum(e**2 / (part.n - 1) for e, part in zip(errors, parts, strict=True))
    half = _t(sum(errors) ** 2 / freedom) * math.sqrt(sum(errors)) if freedom else 0.0
    return Summary(mean, math.sqrt(sum(variances)), half, n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The ends of the 95 % interval (Wilson, 1927) of a proportion ``share`` of ``n`` trials."""
    z = float(stats.norm.ppf(0.975))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _t(freedom: float) -> float:
    return float(stats.t.ppf(0.975, freedom))


@dataclass(frozen=True)
class Test:
    """A paired comparison over tasks; differences are fractions; ``p`` is None if there are too few tasks."""

    tasks: int
    better: int
    worse: int
    mean: float
    median: float
    half: float | None
    p: float | None


def paired_test(differences: Sequence[float]) -> Test:
    """Wilcoxon's two-sided signed-rank test of one difference per task; zero differences are left out.

    Differences are rounded to 1e-10 so that equal ones get equal ranks.
    """
    d = np.round(np.asarray(differences, dtype=float), 10)
    p = None
    if len(d) >= FEWEST_TASKS:
        p = float(stats.wilcoxon(d).pvalue) if np.any(d) else 1.0
    return Test(
        len(d), int((d > 0).sum()), int((d < 0).sum()), float(d.mean()), float(np.median(d)), summarise(d).half, p
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) correction of the p values; None stays None."""
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        corrected[i] = largest
    return corrected


def average_ranks(table: Sequence[Sequence[float]]) -> list[float]:
    """``table``: per method, its accuracy on every task -> each method's mean rank; 1 is best, ties averaged."""
    return stats.rankdata(-np.round(np.asarray(table), 10), axis=0).mean(axis=1).tolist()
