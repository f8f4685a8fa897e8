"""What a fit ends with: the promise, the evidence for it, one look at the test images, the files, and fit.json."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from ... import __version__
from ...engine.fit_folder import MODEL
from ...engine.results import RunFolder
from ...utils.io import read_json, write_json
from .advice import advice
from .budget import exceeded
from .evidence import Answers, doubtful, evidence, write_answers
from .findings import leaks
from .machine import machine
from .promise import Promise, promise
from .shipped import answers_of, ship
from .words import CHANCE, counted

if TYPE_CHECKING:
    from .cheap import Cheap
    from .features import View as Features
    from .networks import Network
    from .plan import Rounds
    from .trials import Trial
    from .work import Fit

logger = logging.getLogger(__name__)

FORMAT = "vitune fit 1"


@dataclass(frozen=True)
class Final:
    """The final model: a tuned network, or a linear head on one, and the result of its run.

    Attributes:
        name: of the recipe; ``network``: DATA.FEATURE, at ``size`` pixels; ``steps``: 0 for a head.
    """

    tuned: bool
    name: str
    network: str
    size: int
    steps: int
    because: str
    result: dict


def conclude(
    fit: Fit,
    networks: list[Network],
    views: list[Features],
    heads: Cheap,
    plan: Rounds,
    trials: list[Trial],
    final: Final,
) -> dict:
    """The content of fit.json, once everything else is in the folder."""
    model = RunFolder(fit.folder / MODEL)
    folds = Answers.of_logits(fit.pool, heads.logits)
    answers, expected = _promised(fit, heads, trials, final, model)
    fit.view.say(f"expect {expected}: {expected.images} images, {BASES[expected.basis]}")
    tested, test = _test(fit, model, expected)
    if test:
        fit.view.say(f"test images: {100 * test['top1']:.1f} % of {test['images']}, {beside_the_promise(test)}")
    write_answers(
        fit.images, {expected.basis: answers} | ({"test": tested} if tested else {}), fit.folder / "answers.csv"
    )
    write_json(model.result, model.read_result() | {"promise": expected.as_dict()})
    files = ship(fit.folder, model.path, fit.view)
    fit.clock.lap("files")
    for finding in exceeded(fit.request.minutes, fit.clock.seconds(), fit.clock.parts):
        fit.findings.append(finding)
        fit.view.say(f"note: {finding.text}")
    about = evidence(fit.images, answers) | {"doubtful_labels": doubtful(fit.images, folds)}
    result = {
        "format": FORMAT,
        "version": __version__,
        "request": read_json(fit.folder / "request.json"),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": {"total": fit.clock.seconds(), **fit.clock.parts},
        "machine": machine(final.result["config_in_full"]["DEVICE"]),
        "data": fit.facts,
        "findings": [asdict(finding) for finding in fit.findings],
        "networks": _networks(networks, views, heads),
        "plan": asdict(plan) | {"total": plan.total, "seconds_per_step": fit.per_step},
        "roles": {name: int(getattr(fit.parts, name).sum()) for name in ("trying", "judging", "developing", "held")},
        "tried": [asdict(trial) | {"top1": trial.top1 if trial.top1 >= 0 else None} for trial in trials],
        "to_beat": heads.beat,
        "choice": {
            "kind": "tuned network" if final.tuned else "linear head",
            "name": final.name,
            "network": final.network,
            "size": final.size,
            "penalties": None if final.tuned else list(heads.choice.penalties),
            "steps": final.steps,
            "why": final.because,
            "parameters": final.result["parameters"],
        },
        "promise": expected.as_dict() | {"text": str(expected), "rests_on": BASES[expected.basis]},
        "evidence": about,
        "test": test,
        "files": files,
    }
    return result | {"next": advice(result)}


BASES = {
    "out-of-fold": "each answered by a head that was chosen and fitted without it",
    "held-out": "which took part in no choice and in no training",
}


def _promised(fit: Fit, heads: Cheap, trials: list[Trial], final: Final, model: RunFolder) -> tuple[Answers, Promise]:
    """The answers that no choice has seen, and what they promise."""
    if final.tuned:
        chosen = fit.pool[fit.parts.held]
        answers = answers_of(model.path, fit.images, chosen, fit.folder / "held.npy")
        basis = "held-out"
    else:
        # Where candidates were tried, the judging images chose between them and the head.
        mask = ~fit.parts.judging if trials else np.ones(len(fit.pool), bool)
        answers = Answers.of_logits(fit.pool[mask], heads.logits[mask])
        basis = "out-of-fold"
    right = answers.right(fit.images.labels)
    return answers, promise(right, fit.groups[answers.chosen], basis)


def _test(fit: Fit, model: RunFolder, expected: Promise) -> tuple[Answers | None, dict | None]:
    """The one look at the test images: those whose picture is among the others' are counted apart."""
    chosen = np.flatnonzero(fit.images.splits == "test")
    if not len(chosen):
        return None, None
    answers = answers_of(model.path, fit.images, chosen, fit.folder / "test.npy")
    right, leaked = answers.right(fit.images.labels), leaks(fit.images, fit.groups)[chosen]
    with_leak = float(right.mean())
    if leaked.all():
        return answers, {"top1": None, "images": 0, "leaked": int(leaked.sum()), "top1_with_leaked": with_leak}
    honest = promise(right[~leaked], fit.groups[chosen][~leaked], "test")
    return answers, {
        "top1": honest.expected,
        "low": honest.low,
        "high": honest.high,
        "images": honest.images,
        "leaked": int(leaked.sum()),
        "top1_with_leaked": with_leak,
        "as_promised": bool(honest.low <= expected.high and expected.low <= honest.high),
        "inside": bool(expected.low <= honest.expected <= expected.high),
        "evidence": evidence(fit.images, answers),
    }


def beside_the_promise(test: dict) -> str:
    """A sentence on a test result beside the promise."""
    leaked = (
        f"; not counted: {counted(test['leaked'], 'image')} whose pictures are among the others"
        if test["leaked"]
        else ""
    )
    if test["inside"]:
        return f"inside the promise{leaked}"
    if test["as_promised"]:
        return f"outside the promise, {CHANCE}{leaked}"
    return f"not as promised: the test images are of another kind than those to learn from{leaked}"


def _networks(networks: list[Network], views: list[Features], heads: Cheap) -> list[dict]:
    rows = []
    for network in networks:
        row = asdict(network)
        for i, view in enumerate(views):
            if view.name == network.name:
                row |= {"seconds": view.seconds, "neighbours": heads.neighbours[i]}
                row |= {"linear_head": heads.choice.accuracies[i], "loss": heads.choice.losses[i]}
        rows.append(row)
    return rows
