"""The cheap half of the ladder: neighbours and linear heads on the features of every network."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...utils.io import read_json, write_atomic, write_json
from .features import View, neighbours_accuracy
from .heads import Choice, average, choose, nested
from .plan import Roles


@dataclass(frozen=True)
class Cheap:
    """What the heads came to.

    Attributes:
        logits: out-of-fold, of the whole procedure.
        choice: made on all images; ``developing``: on those that are not held out.
        beat: accuracy and cross-entropy of heads on the judging images, which a tuned network has to beat.
        neighbours: accuracy of the votes of neighbours, per network.
    """

    logits: np.ndarray
    choice: Choice
    developing: Choice
    beat: float
    neighbours: list[float]


def cheap(
    views: list[View], labels: np.ndarray, groups: np.ndarray, classes: int, roles: Roles, seed: int, folder: Path
) -> Cheap:
    """Choose and judge, or read what was found before; kept in ``folder``."""
    about, file = folder / "heads.json", folder / "heads.npy"
    if about.is_file() and file.is_file():
        found = read_json(about)
        choices = [Choice(**{k: tuple(v) if isinstance(v, list) else v for k, v in found[n].items()}) for n in NAMES]
        return Cheap(np.load(file, allow_pickle=False), *choices, found["beat"], found["neighbours"])
    features = [view.features for view in views]
    logits, _, _ = nested(features, labels, groups, classes, seed)
    whole = choose(features, labels, groups, classes, seed)
    some = roles.developing
    developing = choose([x[some] for x in features], labels[some], groups[some], classes, seed)
    trying, judging = roles.trying, roles.judging
    tried = choose([x[trying] for x in features], labels[trying], groups[trying], classes, seed)
    x = features[tried.view]
    judged = average(x[trying], labels[trying], classes, tried.penalties, x[judging])
    beat = float((judged.argmax(1) == labels[judging]).mean()) if judging.any() else 0.0
    neighbours = [neighbours_accuracy(x, labels, groups, classes) for x in features]
    write_atomic(file, lambda path: _save(path, logits))
    write_json(
        about, {"choice": asdict(whole), "developing": asdict(developing), "beat": beat, "neighbours": neighbours}
    )
    return Cheap(logits, whole, developing, beat, neighbours)


NAMES = ("choice", "developing")


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
