"""Candidates that are tuned: short runs judged on images of their own, the better ones again and longer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fvcore.common.config import CfgNode

from ...engine.results import RunFolder
from ...engine.run import run
from ...engine.shared import Shared
from ...engine.trainer import NonFiniteLoss
from ...utils.io import write_json
from .plan import GO_ON, Rounds

logger = logging.getLogger(__name__)

SAVE_SECONDS = 5.0  # of work that a kill may lose
SAVE_STEPS = 50


@dataclass(frozen=True)
class Trial:
    """A candidate's run: its accuracy and cross-entropy on the judging images; accuracy -1 if its loss diverged."""

    name: str
    round: int
    steps: int
    top1: float
    loss: float
    seconds: float
    trained: int
    why: str = ""


Make = Callable[[str, int], CfgNode]  # recipe, steps -> config


def halving(
    plan: Rounds, make: Make, folder: Path, shared: Shared, room: Callable[[int], bool], tell: Callable[[Trial], None]
) -> tuple[list[Trial], list[str]]:
    """Every trial, in order, and the recipes from best to worst by the longest runs.

    Args:
        make: the config of a run.
        room: whether so many more steps, and the final run, fit into the time.
        tell: called after each trial.
    """
    trials: list[Trial] = []
    names = plan.candidates
    for number, steps in enumerate(plan.steps, start=1):
        if not steps:
            continue
        done = []
        for name in names:
            path = folder / f"{number}-{plan.candidates.index(name) + 1}"
            if done and not RunFolder(path).result.is_file() and not room(steps):
                logger.info("no time left to try %s", name)
                continue
            done.append(trial(name, number, steps, make(name, steps), path, shared))
            tell(done[-1])
        trials += done
        done = sorted(done, key=lambda t: (-t.top1, t.loss))
        names = [t.name for t in done[:GO_ON]]
        if number == 1 and plan.steps[1] and not room(plan.steps[1]):
            logger.info("no time left for the second round")
            break
    return trials, names


def trial(name: str, number: int, steps: int, cfg: CfgNode, path: Path, shared: Shared) -> Trial:
    """Do or resume one run, or read what it came to."""
    folder = RunFolder(path)
    try:
        result = run(cfg, folder, resume=True, shared=shared, save_seconds=SAVE_SECONDS)
    except NonFiniteLoss as error:  # it would diverge again
        write_json(folder.stopped, {"diverged": str(error)})
        return Trial(name, number, steps, -1.0, float("inf"), 0.0, 0, "its loss diverged")
    seconds = sum(result["cost"]["seconds"].values())
    trained = result["parameters"]["trained"]
    return Trial(name, number, steps, result["val"]["top1"], result["val"]["loss"], seconds, trained)
