"""What the answers behind the promise show: every class, confusions, calibration, certain errors, doubtful labels."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ...data.sources.base import printable
from ...utils.io import write_atomic
from ..report.stats import wilson
from .images import Images

BINS = 10
SHOWN = 30
DOUBT = 0.9  # least difference of the probabilities of the predicted and the labelled class


@dataclass(frozen=True)
class Answers:
    """Probabilities (N, C) of the images with these indices, by models that had not seen them."""

    chosen: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of_logits(cls, chosen: np.ndarray, logits: np.ndarray) -> "Answers":
        return cls(chosen, softmax(logits.astype(float), axis=1))

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(1)

    def right(self, labels: np.ndarray) -> np.ndarray:
        """(N,) bool."""
        return self.predicted == labels[self.chosen]

    def only(self, mask: np.ndarray) -> "Answers":
        """Those of the images in ``mask``, over all images."""
        own = mask[self.chosen]
        return Answers(self.chosen[own], self.probabilities[own])


def evidence(images: Images, answers: Answers) -> dict:
    """Tables for fit.json."""
    labels, predicted = images.labels[answers.chosen], answers.predicted
    classes = len(images.class_names)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, predicted), 1)
    return {
        "per_class": [_class(images.class_names[i], confusion, i) for i in range(classes)],
        "confusion": confusion.tolist(),
        "calibration": calibration(answers.probabilities.max(1), predicted == labels),
        "errors": _listed(images, answers, np.flatnonzero(predicted != labels)),
    }


def _class(name: str, confusion: np.ndarray, i: int) -> dict:
    count, hits, named = int(confusion[i].sum()), int(confusion[i, i]), int(confusion[:, i].sum())
    low, high = wilson(hits / count, count) if count else (None, None)
    recall = hits / count if count else None
    return {
        "name": name,
        "images": count,
        "recall": recall,
        "low": low,
        "high": high,
        "precision": hits / named if named else None,
    }


def calibration(confidence: np.ndarray, right: np.ndarray) -> dict:
    """Bins of equal width, and the expected calibration error (Guo et al., 2017, arXiv:1706.04599)."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for i in np.unique(index):
        own = index == i
        claimed, true = float(confidence[own].mean()), float(right[own].mean())
        error += own.mean() * abs(claimed - true)
        bins.append(
            {"from": i / BINS, "to": (i + 1) / BINS, "images": int(own.sum()), "confidence": claimed, "accuracy": true}
        )
    return {"bins": bins, "error": float(error)}


def doubtful(images: Images, answers: Answers) -> list[dict]:
    """Images whose labels are likely wrong: answers that are sure of another class, the surest first."""
    labels = images.labels[answers.chosen]
    rows = np.arange(len(labels))
    margin = answers.probabilities.max(1) - answers.probabilities[rows, labels]
    return _listed(images, answers, np.flatnonzero(margin >= DOUBT), margin)


def _listed(images: Images, answers: Answers, which: np.ndarray, by: np.ndarray | None = None) -> list[dict]:
    by = answers.probabilities.max(1) if by is None else by
    names = images.class_names
    order = which[np.argsort(-by[which], kind="stable")][:SHOWN]
    return [
        {
            "file": printable(images.files[answers.chosen[i]]),
            "label": names[images.labels[answers.chosen[i]]],
            "predicted": names[answers.predicted[i]],
            "probability": float(answers.probabilities[i].max()),
            "of_label": float(answers.probabilities[i, images.labels[answers.chosen[i]]]),
        }
        for i in order
    ]


def write_answers(images: Images, parts: dict[str, Answers], path: Path) -> None:
    """A CSV of all answers: basis, file, label, predicted, probability."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["basis", "file", "label", "predicted", "probability"])
            for basis, answers in parts.items():
                names = images.class_names
                for i, row in zip(answers.chosen, answers.probabilities, strict=True):
                    label = names[images.labels[i]]
                    lines.writerow([basis, printable(images.files[i]), label, names[row.argmax()], f"{row.max():.6g}"])

    write_atomic(path, write)
