"""Ensembles of finished runs' answers, and the control: as many seeds of one method."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np

from .agreement import Answers

MOST = 50  # sets of seeds that are averaged over, at most: there are 252 of 5 among 10


@dataclass(frozen=True)
class Ensemble:
    """Accuracies (fractions) of answers that are joined, and of their members; means where several sets were tried.

    Attributes:
        of: what is joined, for people.
        size: members of each set; ``sets``: how many sets.
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
    """One of all groups, a run of each, and as controls as many runs of a single group where it has so many.

    Where no group has as many runs as there are groups, smaller ensembles of different groups are compared with all
    runs of one.

    Args:
        answers: group (runs that differ in their seed alone) -> its runs' answers; ``logits`` (N, C) of the same.
    """
    most = max(map(len, answers.values()))
    sizes = [len(answers)] + ([most] if 1 < most < len(answers) else [])
    found = []
    for size in sizes if len(answers) > 1 else ():
        found.append(_mean("different methods", _across(answers, logits, size)))
    for size in sizes if len(answers) > 1 else [most]:
        for group, some in answers.items():
            if 1 < size <= len(some):
                chosen = islice(combinations(range(len(some)), size), MOST)
                sets = [([some[i] for i in which], [logits[group][i] for i in which]) for which in chosen]
                found.append(_mean(f"seeds of {group}", sets))
    return found


def _across(answers: dict, logits: dict, size: int) -> list[tuple[list[Answers], list[np.ndarray]]]:
    """Of every ``size`` groups the first runs, the second ones, ..., as far as each of them has one."""
    sets = [
        ([answers[group][i] for group in some], [logits[group][i] for group in some])
        for some in combinations(answers, size)
        for i in range(min(len(answers[group]) for group in some))
    ]
    return sets[:MOST]


def _mean(of: str, sets: Sequence[tuple[list[Answers], list[np.ndarray]]]) -> Ensemble:
    every = np.array([_measure(*one) for one in sets])
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
    """(N,) the class that most members answer; of equally many, the one with the higher mean probability."""
    shape = members[0].probabilities.shape
    votes, rows = np.zeros(shape), np.arange(shape[0])
    for member in members:
        votes[rows, member.classes] += 1
    return (votes + np.mean([member.probabilities for member in members], axis=0) / 2).argmax(1)
