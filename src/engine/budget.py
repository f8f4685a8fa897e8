"""``SOLVER.MEMORY_GB``: how a run's steps fit into a budget of memory, and what does not change by it.

A plan sets what costs time and not accuracy: recomputation in the backward pass, pieces whose gradients add up to those
of the batch, and how many images are evaluated at a time. What the settings say already is kept. Every choice is tried
on shapes alone (step_memory.py); of those that fit, the plan is the one that is expected to take the least time.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch.nn.modules.batchnorm import _BatchNorm

from ..configs.facts import evaluation_batch, image_size
from ..data.store import GIB
from ..models.families import UNKNOWN, family_of
from ..models.memo import Memo
from ..models.recompute import LEVELS
from ..models.vit_models import TunedViT
from ..solver.optimizer import OPTIMIZERS
from ..utils.launch import expected
from .step_memory import Predicted, StepMemory, shown
from .what_to_keep import set_recompute

logger = logging.getLogger(__name__)

# Time of a step as a multiple of that without: estimates, which only order the choices. Recomputation takes 9 to 27 %
# more on a CPU; pieces of few images leave processors idle.
SLOWER = {"off": 1.0, "auto": 1.2, "blocks": 1.33}
PER_HALVING = 1.02
ENOUGH = 8  # images in a piece
PER_HALVING_BELOW = 1.15


@dataclass(frozen=True)
class Choice:
    """A level of MODEL.RECOMPUTE and a number of pieces, SOLVER.ACCUMULATE."""

    recompute: str
    pieces: int

    def slowness(self, images: int) -> float:
        halvings = math.log2(self.pieces)
        below = max(0.0, min(halvings, math.log2(ENOUGH * self.pieces / images)))
        return SLOWER[self.recompute] * PER_HALVING ** (halvings - below) * PER_HALVING_BELOW**below

    def __str__(self) -> str:
        return f"MODEL.RECOMPUTE {self.recompute}, SOLVER.ACCUMULATE {self.pieces}"


@dataclass(frozen=True)
class Plan:
    """How a run computes.

    Attributes:
        step: what a training step takes; None where there are none (lbfgs).
        images: evaluated at a time, which takes ``evaluation`` bytes.
        features: whether activations of frozen layers can be computed for a whole batch at once, to be cached.
    """

    choice: Choice
    step: StepMemory | None
    images: int
    evaluation: int
    features: bool

    @property
    def peak(self) -> int:
        return max(self.evaluation, self.step.peak if self.step else 0)

    @property
    def settings(self) -> dict:
        """For the record."""
        own = {"DATA.EVAL_BATCH_SIZE": self.images}
        if self.step:
            own |= {"MODEL.RECOMPUTE": self.choice.recompute, "SOLVER.ACCUMULATE": self.choice.pieces}
        return own if self.features else own | {"DATA.CACHE_FEATURES": "off"}

    def applied(self, cfg: CfgNode) -> CfgNode:
        """The settings with which to compute."""
        planned = cfg.clone()
        planned.defrost()
        for key, value in self.settings.items():
            section, name = key.split(".")
            planned[section][name] = value
        planned.freeze()
        return planned

    def __str__(self) -> str:
        step = f"a step takes {self.step}, with {self.choice}; " if self.step else ""
        return f"{step}evaluation takes {shown(self.evaluation)}, with DATA.EVAL_BATCH_SIZE {self.images}"


class NoRoom(ValueError):
    """Nothing fits into SOLVER.MEMORY_GB."""


def plan(cfg: CfgNode, model: TunedViT, device: torch.device) -> Plan:
    """The fastest way to train ``model`` within SOLVER.MEMORY_GB.

    Raises:
        NoRoom: there is none; the message says which budget would do.
        ValueError: shapes alone do not tell what the model takes.
    """
    try:
        return Planner(cfg, model, device).plan()
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"SOLVER.MEMORY_GB: what a step of this model takes cannot be predicted ({error}): leave it out"
        ) from error


class Planner:
    """Tries choices, each once."""

    def __init__(self, cfg: CfgNode, model: TunedViT, device: torch.device):
        self.cfg, self.model, self.device = cfg, model, device
        self.takes_steps = cfg.SOLVER.OPTIMIZER in OPTIMIZERS  # lbfgs reads features that are computed before
        self.limit = cfg.SOLVER.MEMORY_GB * GIB
        self.images = -(-cfg.DATA.BATCH_SIZE // expected())
        self.compared = _compared(model)
        self.predicted = Predicted(cfg, model, image_size(cfg), device)
        self._memo = Memo()
        self._steps: dict[Choice, StepMemory] = {}

    def plan(self) -> Plan:
        choices = sorted(self._choices(), key=lambda choice: choice.slowness(self.images))
        images = self._evaluated()
        chosen = self._chosen(choices) if self.takes_steps else choices[0]
        if chosen is None or not images:
            raise NoRoom(self._nothing(choices if self.takes_steps else []))
        evaluation = self.predicted.evaluation
        features = evaluation(self.cfg.DATA.BATCH_SIZE) <= self.limit
        step = self._step(chosen) if self.takes_steps else None
        return Plan(chosen, step, images, evaluation(images), features)

    def _chosen(self, choices: list[Choice]) -> Choice | None:
        """The first that fits. Where the very first does not, the smallest pieces tell at once whether any does."""
        if self._fits(choices[0]):
            return choices[0]
        most = max(choice.pieces for choice in choices)
        if not any(self._fits(choice) for choice in choices if choice.pieces == most):
            return None
        return next(filter(self._fits, choices), None)

    def _choices(self) -> Iterator[Choice]:
        """All that the settings leave open."""
        solver, own = self.cfg.SOLVER, self.cfg.MODEL
        levels = [own.RECOMPUTE] if own.RECOMPUTE != "off" else list(LEVELS)
        if own.GRAD_CHECKPOINT:
            levels = ["blocks"]
        elif family_of(self.model.vit) is UNKNOWN:
            levels = ["off"]
        pieces = [2**i for i in range(int(math.log2(max(1, self.images // 2))) + 1)]  # of two images at least
        if solver.ACCUMULATE > 1 or self.compared:
            pieces = [solver.ACCUMULATE]
        return (Choice(level, count) for level in levels for count in pieces)

    def _step(self, choice: Choice) -> StepMemory:
        if choice not in self._steps:
            cfg = self.cfg.clone()
            cfg.defrost()
            cfg.MODEL.RECOMPUTE, cfg.MODEL.GRAD_CHECKPOINT = choice.recompute, False
            set_recompute(cfg, self.predicted.shadow, self.device, self._memo)
            self._steps[choice] = self.predicted.step(self.images, choice.pieces)
        return self._steps[choice]

    def _fits(self, choice: Choice) -> bool:
        return self._at_least(choice) <= self.limit and self._need(choice) <= self.limit

    def _need(self, choice: Choice) -> float:
        """Bytes of the largest step of an epoch, whose last batch may have an image more: see ``split_batches``."""
        step = self._step(choice)
        more = (step.images + step.activations * choice.pieces) / self.images
        return step.peak + (0 if self.cfg.DATA.DROP_LAST else more)

    def _at_least(self, choice: Choice) -> float:
        """A bound for the peak, known at once: as a function of a piece's size, a peak is convex."""
        known = [c for c in self._steps if c.recompute == choice.recompute and 1 < c.pieces < choice.pieces]
        if len(known) < 2:
            return 0
        smaller, larger = known[-1], known[-2]
        peak, size = self._step(smaller).peak, self._size(smaller)
        slope = (self._step(larger).peak - peak) / (self._size(larger) - size)
        return peak - slope * (size - self._size(choice))

    def _size(self, choice: Choice) -> int:
        """Images of a piece."""
        return -(-self.images // choice.pieces)

    def _evaluated(self) -> int:
        """Images to evaluate at a time; 0: not even one fits."""
        wanted = evaluation_batch(self.cfg, self.device.type)
        least = wanted if self.cfg.DATA.EVAL_BATCH_SIZE else 1
        while wanted > least and self.predicted.evaluation(wanted) > self.limit:
            wanted = -(-wanted // 2)
        return wanted if self.predicted.evaluation(wanted) <= self.limit else 0

    def _nothing(self, choices: list[Choice]) -> str:
        """What to say where nothing fits."""
        data, solver = self.cfg.DATA, self.cfg.SOLVER
        images = data.EVAL_BATCH_SIZE or 1
        needs = [self.predicted.evaluation(images)]
        parts = [f"evaluation takes {shown(needs[0])}, with DATA.EVAL_BATCH_SIZE {images}"]
        if choices:
            least = min((c for c in choices if c.pieces == max(c.pieces for c in choices)), key=self._need)
            needs.append(self._need(least))
            parts.insert(0, f"a step takes at least {self._step(least)}, with {least}")
        if self.compared:
            parts.append(f"the batch cannot be split, since the batch norm {self.compared} compares its images")
        enough = math.ceil(100 * max(needs) / GIB) / 100
        return (
            f"SOLVER.MEMORY_GB {solver.MEMORY_GB:g} is too little: {'; '.join(parts)}. Set SOLVER.MEMORY_GB "
            f"{enough:.2f} or more, or choose a smaller backbone, smaller images or another method"
        )


def _compared(model: TunedViT) -> str:
    """The name of a batch norm that, in training, compares the images of a batch; "" if there is none."""
    was = model.training
    names = [
        name for name, module in model.train().named_modules() if isinstance(module, _BatchNorm) and module.training
    ]
    model.train(was)
    return next(iter(names), "")
