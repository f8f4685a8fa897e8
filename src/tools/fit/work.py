"""A fit from beginning to end: look, features, heads, plan, candidates, the final model, the promise, the files."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode

from ...configs.files import ConfigError
from ...engine.fit_folder import MODEL, RESULT
from ...engine.results import RunFolder
from ...engine.run import run
from ...engine.shared import Shared
from ...utils.io import exclusive, read_json, remove_partial, write_json
from .budget import enough_minutes, seconds_left
from .cheap import Cheap, cheap
from .conclusion import Final, conclude
from .features import View as Features
from .features import view as features_of
from .findings import Finding, findings
from .images import Images, open_images
from .labels import require_learned
from .look import alike, digest_of, groups_of, look
from .machine import seconds_per_step
from .networks import Network, on_disk, require_here
from .page import PAGE, write_page
from .plan import BATCH, FEWEST_HELD, LEAST_STEPS, RECIPES, SHORTEST_FINAL, Rounds, roles, rounds
from .request import Clock, Request, claim, make_folder
from .settings import settings, value, write_list
from .trials import SAVE_SECONDS, SAVE_STEPS, Trial, halving
from .view import View
from .words import counted

logger = logging.getLogger(__name__)

ROOT = "MODEL.MODEL_ROOT", "pretrained"


def fit_images(request: Request, folder: Path, quiet: bool = False) -> dict:
    """Do the fit, or go on with it; the content of fit.json.

    Raises:
        ConfigError, DataError, FileNotFoundError: bad settings, images that cannot be learned from, no weights.
        Interrupted: a signal stopped it; the same call goes on.
    """
    request.check()
    require_here(request.backbones, value(request.own, *ROOT))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: give a folder with --out")
    images = open_images(request.data)
    require_learned(images)
    make_folder(folder)
    with exclusive(folder / ".lock"):
        claim(folder, request, digest_of(images))
        remove_partial(folder)
        if (folder / RESULT).is_file():
            result = read_json(folder / RESULT)
            if not (folder / PAGE).is_file():
                write_page(result, folder)
            return result
        total, unit = (request.steps, "steps") if request.steps else (60 * request.minutes, "seconds")
        with View(total, unit, quiet) as view:
            return Fit(request, folder, view).complete(images)


class Fit:
    """The steps of a fit, in a folder that is this process's own.

    Attributes:
        images: that can be decoded; ``pool``: the indices of those to learn from, ``labels`` and ``groups`` are theirs.
    """

    def __init__(self, request: Request, folder: Path, view: View):
        self.request = request
        self.folder = folder
        self.view = view
        self.shared = Shared()
        self.clock = Clock(folder / "clock.json")
        self.findings: list[Finding] = []

    def complete(self, images: Images) -> dict:
        """All steps in their order; the content of fit.json."""
        networks = self._networks()
        self._look(images)
        self.parts = roles(self.labels, self.groups[self.pool], self.request.seed)
        self.lists = self._lists()
        views = self._features([network for network in networks if not network.why_not])
        heads = self._heads(views)
        best = views[heads.developing.view]
        plan = self._plan(best)
        trials, order = self._try(plan, best)
        final = self._final(plan, trials, order, heads, views)
        result = conclude(self, networks, views, heads, plan, trials, final)
        write_json(self.folder / RESULT, result)
        write_page(result, self.folder)
        return result

    # ---- before anything is trained

    def _look(self, images: Images) -> None:
        self._runs("looking at the images")
        seen = look(images, self.folder, int(self._own("DATA.NUM_WORKERS", "4")))
        if not seen.usable.any():
            name, why = seen.broken[0]
            raise ConfigError(f"none of the {len(images)} images can be decoded, such as {name}: {why}")
        self.images = images.take(np.flatnonzero(seen.usable))
        require_learned(self.images)
        same = alike(seen)
        self.groups = groups_of(len(self.images), same.pairs, self.images.groups)
        self.facts, self.findings = findings(self.images, seen, same, self.groups)
        self.pool = np.flatnonzero(self.images.splits != "test")
        self.labels = self.images.labels[self.pool]
        counts = ", ".join(f"{count:,} {name}" for name, count in self.facts["images"].items())
        self.view.say(f"{self.images.root}: {counts} images in {self.classes} classes ({self.images.source})")
        for finding in self.findings:
            self.view.say(f"note: {finding.text}")
        self.clock.lap("look")

    def _networks(self) -> list[Network]:
        root, size = self._own(*ROOT), int(self._own("DATA.CROPSIZE", "0"))
        networks = on_disk(root, size, self.request.backbones)
        for network in networks:
            if network.why_not:
                self.view.say(f"note: {network.name} is not tried: {network.why_not}")
        return networks

    def _lists(self) -> dict[str, Path]:
        """Files that list who is for what."""
        parts, folder = self.parts, self.folder / "lists"
        masks = {"trying": parts.trying, "judging": parts.judging, "developing": parts.developing, "held": parts.held}
        who = {"all": self.pool} | {name: self.pool[mask] for name, mask in masks.items()}
        return {
            name: write_list(self.images, chosen, folder / f"{name}.txt") for name, chosen in who.items() if len(chosen)
        }

    def _features(self, networks: Sequence[Network]) -> list[Features]:
        views = []
        for network in networks:
            self._runs(f"features of {network.name}")
            cfg = self.settings({"train": "all"}, network.name, network.size, {"MODEL.TRANSFER_TYPE": "linear"})
            views.append(features_of(cfg, self.shared))
            self.clock.lap("features")
        return views

    def _heads(self, views: list[Features]) -> Cheap:
        self._runs("heads on the features")
        groups = self.groups[self.pool]
        heads = cheap(views, self.labels, groups, self.classes, self.parts, self.request.seed, self.folder)
        for i, view in enumerate(views):
            near, head = heads.neighbours[i], heads.choice.accuracies[i]
            self.view.say(
                f"{view.name}, {view.size} pixels: neighbours {100 * near:.1f} %, linear head {100 * head:.1f} %"
            )
        self.view.leads = f"a linear head leads, {100 * (heads.logits.argmax(1) == self.labels).mean():.1f} %"
        self.clock.lap("heads")
        return heads

    def _plan(self, best: Features) -> Rounds:
        """How the budget is spent; decided once, and kept in plan.json."""
        file = self.folder / "plan.json"
        if file.is_file():
            kept = read_json(file)
            rows = kept["rounds"]
            plan = Rounds(rows["candidates"], tuple(rows["steps"]), rows["final"], rows["why_not"])
            self.per_step = kept["seconds_per_step"]
        else:
            plan = self._made_plan(best)
            write_json(file, {"rounds": asdict(plan), "seconds_per_step": self.per_step, "network": best.name})
        if plan.why_not:
            self.findings.append(Finding("not_tuned", f"no network is tuned: {plan.why_not}", float(plan.total)))
            self.view.say(f"plan: {self.findings[-1].text}")
        else:
            time = f", about {plan.total * self.per_step / 60:.1f} minutes" if self.per_step else ""
            runs = f"{counted(len(plan.candidates), 'candidate')} of {plan.steps[0]} steps"
            runs += f", the best two of {plan.steps[1]}" if plan.steps[1] else ""
            self.view.say(
                f"plan: on {best.name}, {runs}, then the final model of {plan.final}: {plan.total:,} steps{time}"
            )
        return plan

    def _made_plan(self, best: Features) -> Rounds:
        self._runs("measuring the speed")
        self.per_step = 0.0
        if (held := int(self.parts.held.sum())) < FEWEST_HELD or not self.parts.judging.any():
            least = FEWEST_HELD * 4
            return Rounds(
                why_not=f"of {len(self.pool)} images {held} would be held out to check it, and {FEWEST_HELD} are "
                f"needed; from about {least} images on it is tried"
            )
        names, whys = [], []
        for name in RECIPES:
            try:
                self.shared.require_methods_fit(self.recipe(name, 1, best))
                names.append(name)
            except ValueError as error:
                whys.append(str(error).splitlines()[0])
        if not names:
            return Rounds(why_not=f"none of the methods fits {best.name}: {whys[0]}")
        steps = self.request.steps
        if not steps:
            self.per_step = seconds_per_step(self.recipe(names[0], 1, best), self.shared)
            steps = max(0, int(self._left() / self.per_step))
        plan = rounds(steps, names, int(self.parts.developing.sum()))
        if plan.why_not and self.per_step:
            enough = enough_minutes(LEAST_STEPS, self.per_step, self.clock.seconds())
            plan = replace(plan, why_not=f"{plan.why_not}; here, about {counted(enough, 'minute')} would be enough")
        return plan

    # ---- training

    def recipe(self, name: str, steps: int, best: Features, final: bool = False) -> CfgNode:
        """The config of a run of a recipe: tried and judged, or final, on all that may take part in choices."""
        lists = {"train": "developing", "test": "held"} if final else {"train": "trying", "val": "judging"}
        length = {"SOLVER.MAX_STEPS": steps, "SOLVER.WARMUP_STEPS": max(1, steps // 10), "SOLVER.EVAL_EVERY": 0}
        length |= {"SOLVER.SAVE_EVERY": SAVE_STEPS, "DATA.BATCH_SIZE": BATCH}
        return self.settings(lists, best.name, best.size, RECIPES[name] | length)

    def _try(self, plan: Rounds, best: Features) -> tuple[list[Trial], list[str]]:
        if plan.why_not:
            return [], []

        done: list[Trial] = []

        def tell(trial: Trial) -> None:
            what = f"{100 * trial.top1:.1f} %" if trial.top1 >= 0 else trial.why
            self.view.say(f"round {trial.round}, {trial.steps} steps: {trial.name}: {what} of the judging images")
            self.clock.lap("candidates")
            done.append(trial)
            if not self.request.steps and trial.seconds:  # the machine may be slower than it was measured
                self.per_step = sum(t.seconds for t in done) / sum(t.steps for t in done)

        def make(name: str, steps: int) -> CfgNode:
            self._runs(f"{name}, {steps} steps")
            return self.recipe(name, steps, best)

        return halving(
            plan, make, self.folder / "trials", self.shared, lambda steps: self._room(steps + plan.final), tell
        )

    def _room(self, steps: int) -> bool:
        """Whether so many steps fit into what is left of the minutes."""
        return bool(self.request.steps) or steps * self.per_step <= self._left()

    def _left(self) -> float:
        """Seconds of the minutes."""
        return seconds_left(self.request.minutes, self.clock.seconds())

    def _final(self, plan: Rounds, trials: list[Trial], order: list[str], heads: Cheap, views: list[Features]) -> Final:
        """Train the final model: the best candidate, or a linear head where no candidate is better than one."""
        self._runs("the final model")
        last = [trial for trial in trials if trial.round == max(t.round for t in trials)]
        best = next((trial for trial in last if order and trial.name == order[0]), None)
        tuned = best is not None and best.top1 > heads.beat
        steps, judged = 0, f"{100 * heads.beat:.1f} % of {int(self.parts.judging.sum())} judging images"
        if tuned:
            view = views[heads.developing.view]
            steps = self._final_steps(plan)
            cfg = self.recipe(best.name, steps, view, final=True)
            because = (
                f"{best.name} on {view.name}: {100 * best.top1:.1f} % after {best.steps} steps, a linear head {judged}"
            )
        else:
            view = views[heads.choice.view]
            linear = {"MODEL.TRANSFER_TYPE": "linear", "SOLVER.PENALTIES": list(heads.choice.penalties)}
            cfg = self.settings({"train": "all"}, view.name, view.size, linear)
            rival = f"no candidate was better than its {judged} ({best.name}: {100 * best.top1:.1f} %)" if best else ""
            because = f"a linear head on {view.name}: {rival or 'no network was tuned'}"
        self.view.say(f"chosen: {because}")
        result = run(cfg, RunFolder(self.folder / MODEL), resume=True, shared=self.shared, save_seconds=SAVE_SECONDS)
        self.clock.lap("final")
        return Final(tuned, best.name if tuned else "linear head", view.name, view.size, steps, because, result)

    def _final_steps(self, plan: Rounds) -> int:
        """Steps of the final run: as planned, or as many as the minutes that are left allow; decided once, and kept."""
        file = self.folder / "final.json"
        if not file.is_file():
            fit = int(self._left() / self.per_step) if self.per_step else plan.final
            write_json(file, {"steps": min(plan.final, max(SHORTEST_FINAL, fit))})
        return read_json(file)["steps"]

    # ---- helpers

    @property
    def classes(self) -> int:
        return len(self.images.class_names)

    def settings(self, lists: dict[str, str], name: str, size: int, more: dict[str, object]) -> CfgNode:
        """A run's config; the user's own settings win over a recipe's."""
        mine = dict(zip(self.request.own[::2], self.request.own[1::2], strict=True))
        chosen = {key: value for key, value in more.items() if key not in mine or key == "MODEL.TRANSFER_TYPE"}
        pairs = [text for pair in (mine | chosen | {"SEED": self.request.seed}).items() for text in pair]
        return settings(self.images, {role: self.lists[which] for role, which in lists.items()}, name, size, pairs)

    def _own(self, key: str, default: str) -> str:
        return value(self.request.own, key, default)

    def _runs(self, what: str) -> None:
        self.view.running(what, 0 if self.request.steps else self.clock.seconds())
