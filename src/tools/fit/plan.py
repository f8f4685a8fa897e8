"""The plan: which images are for what, and how the budget is spent. It is written down before anything is trained.

A budget of minutes becomes one of steps here, with the speed measured on this machine; from then on only steps count,
so that a fit goes on after a stop exactly as it would have gone on without it.
"""

from dataclasses import dataclass, field

import numpy as np

from .folds import share
from .words import counted

HELD_OUT = 0.25  # of the images: for the promise of a tuned network, in no choice
JUDGES = 0.25  # of the rest: choose among candidates
MOST_HELD = 2000  # images that are held out, and that judge, at most
FEWEST_HELD = 30  # with fewer, the interval would be wider than 30 points
SHORTEST, SHORTEST_FINAL = 50, 60  # steps of a first run of two, and of a final one
RATE = 3  # the second round's runs are so many times longer
GO_ON = 2  # candidates in the second round
FINAL = 0.45  # of the steps
EPOCHS, ENOUGH, MOST_STEPS = 10, 300, 5000  # of the final run: ten epochs, at least and at most so many steps
BATCH = 32
LEAST_STEPS = -(-SHORTEST_FINAL * 100 // round(100 * FINAL))  # with fewer, no network is tuned

# What is tuned, the most likely first: label, settings. The learning rate is the one that suits the method.
RECIPES: dict[str, dict[str, str]] = {
    "lora": {"MODEL.TRANSFER_TYPE": "lora", "DATA.AUGMENT": "crop_flip"},
    "lora, no flips or crops": {"MODEL.TRANSFER_TYPE": "lora", "DATA.AUGMENT": "none"},
    "lora + freqfit": {
        "MODEL.TRANSFER_TYPE": "lora",
        "FREQFIT": "freqfit",
        "MODEL.FREQFIT.INIT": "identity",
        "DATA.AUGMENT": "none",
    },
    "adaptformer": {"MODEL.TRANSFER_TYPE": "adaptformer", "DATA.AUGMENT": "none"},
    "ssf": {"MODEL.TRANSFER_TYPE": "ssf", "DATA.AUGMENT": "none"},
    "adaptformer, flips and crops": {"MODEL.TRANSFER_TYPE": "adaptformer", "DATA.AUGMENT": "crop_flip"},
}


@dataclass(frozen=True)
class Roles:
    """Masks over the images that are not for testing: who tries, who judges the tries, who is held out."""

    trying: np.ndarray
    judging: np.ndarray
    held: np.ndarray

    @property
    def developing(self) -> np.ndarray:
        """All that may take part in choices."""
        return ~self.held


def roles(labels: np.ndarray, groups: np.ndarray, seed: int) -> Roles:
    """Stratified; images of one group have the same role."""
    held = share(labels, groups, min(HELD_OUT, MOST_HELD / len(labels)), seed)
    rest = np.flatnonzero(~held)
    judging = np.zeros(len(labels), bool)
    some = share(labels[rest], groups[rest], min(JUDGES, MOST_HELD / len(rest)), seed + 1)
    judging[rest[some]] = True
    return Roles(~held & ~judging, judging, held)


@dataclass(frozen=True)
class Rounds:
    """Successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943): two rounds, then the final run.

    Attributes:
        candidates: in the first round.
        steps: of a run in each round; 0: there is no such round.
        final: steps of the final run; 0: no network is tuned.
        why_not: why none is; "" if one is.
    """

    candidates: list[str] = field(default_factory=list)
    steps: tuple[int, int] = (0, 0)
    final: int = 0
    why_not: str = ""

    @property
    def total(self) -> int:
        return len(self.candidates) * self.steps[0] + GO_ON * self.steps[1] + self.final


def rounds(steps: int, recipes: list[str], developing: int) -> Rounds:
    """How ``steps`` are spent on ``recipes``, as many of them as the steps allow.

    Args:
        developing: images that the final run trains on.
    """
    enough = min(MOST_STEPS, max(ENOUGH, EPOCHS * developing // BATCH))
    final = min(enough, int(FINAL * steps))
    rest = steps - final
    for count in range(len(recipes), GO_ON, -1):
        first = min(rest // (count + GO_ON * RATE), final // RATE)
        if first >= SHORTEST:
            return Rounds(recipes[:count], (first, RATE * first), final)
    for count in range(min(GO_ON, len(recipes)), 0, -1):
        if (first := min(rest // count, final)) >= SHORTEST_FINAL:
            return Rounds(recipes[:count], (first, 0), final)
    return Rounds(
        why_not=f"the budget is too small: it has room for {counted(steps, 'training step')}, of at least {LEAST_STEPS}"
    )
