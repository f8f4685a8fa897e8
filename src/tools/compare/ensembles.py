"""Ensembles of finished runs, and their control: the same number of seeds of one method."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np

from .agreement import Answers

MOST = 50  # maximum sets of seeds to average over: 5 of 10 seeds make 252 sets


@dataclass(frozen=True)
class Ensemble:
    """Accuracies (fractions) of combined answers and of their members; means over several sets.

    Attributes:
        of: what is combined, for tables.
        size: members per set; ``sets``: number of sets.
    """

    of: str
    size: int
    sets: int
    logits: float
    probabilities: float
    vote: float
    mean_member: float
    best_member: float
    oracle: float


def ensembles(answers: dict[str, list[Answers]], logits: dict[str, list[np.ndarray]]) -> list[Ensemble]:
    """Ensembles of one run of each group, and as controls as many runs of a single group, if it has enough.

    If no group has as many runs as there are groups, smaller ensembles of different groups are compared with all runs
    of one group.

    Args:
        answers: group (runs that differ only in the seed) -> its runs' answers; ``logits``: their logits (N, C).
    """
    most = max(map(len, answers.values()))
    sizes = [len(answers)] + ([most] if 1 < most < len(answers) else [])
    results = []
    for size in sizes if len(answers) > 1 else ():
        results.append(_mean("different methods", _across(answers, logits, size)))
    for size in sizes if len(answers) > 1 else [most]:
        for group, some in answers.items():
            if 1 < size <= len(some):
                chosen = islice(combinations(range(len(some)), size), MOST)
                sets = [([some[i] for i in which], [logits[group][i] for i in which]) for which in chosen]
                results.append(_mean(f"seeds of {group}", sets))
    return results


def _across(answers: dict, logits: dict, size: int) -> list[tuple[list[Answers], list[np.ndarray]]]:
    """For every ``size`` groups: their first runs, their second runs, ..., as long as each has one."""
    sets = [
        ([answers[group][i] for group in some], [logits[group][i] for group in some])
        for some in combinations(answers, size)
        for i in range(min(len(answers[group]) for group in some))
    ]
    return sets[:MOST]


def _mean(of: str, sets: Sequence[tuple[list[Answers], list[np.ndarray]]]) -> Ensemble:
    every = np.array([_measure(*members) for members in sets])
    return Ensemble(of, len(sets[0][0]), len(sets), *every.mean(0).tolist())


def _measure(members: list[Answers], logits: list[np.ndarray]) -> tuple[float, ...]:
    labels = members[0].labels
    accuracies = [float(member.right.mean()) for member in members]
    probabilities = np.mean([member.probabilities for member in members], axis=0)
    return (
        float((np.mean(logits, axis=0).argmax(1) == labels).mean()),
        float((probabilities.argmax(1) == labels).mean()),
        float((vote(members) == labels).mean()),
        float(np.mean(accuracies)),
        max(accuracies),
        float(np.any([member.right for member in members], axis=0).mean()),
    )


def vote(members: Sequence[Answers]) -> np.ndarray:
    """(N,) the class that most members choose; ties go to the higher mean probability."""
    shape = members[0].probabilities.shape
    votes, rows = np.zeros(shape), np.arange(shape[0])
    for member in members:
        votes[rows, member.classes] += 1
    return (votes + np.mean([member.probabilities for member in members], axis=0) / 2).argmax(1)
