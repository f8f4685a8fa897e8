"""The models that are loaded, and the frozen backbones that they share."""

import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from ...configs.facts import methods_label
from ...data.pixels import Pixels
from ...engine.backbones import Backbones
from ...engine.checkpoint import CheckpointError, Tuned, learned_size, load_tuned
from ...engine.device import choose_device
from ...engine.fit_folder import is_fit
from ...engine.precision import how_computed
from ...models.families.stages import Stage
from ...models.prefix import untouched
from ...models.vit_models import backbone_arguments
from .folders import TUNED, run_at
from .limits import Limits

logger = logging.getLogger(__name__)

CLOSE = 1e-5  # of the largest logit


class TooMany(ValueError):
    """As many models are loaded as may be."""


class Taken(ValueError):
    """Another model has the name."""


@dataclass(frozen=True, eq=False)
class Served:
    """A run that is loaded.

    Attributes:
        inside, rest: the stages that are the backbone's own, and those after them; see ``untouched``.
        family: models with the same can be computed in one batch; they share backbone, pixels and precision.
    """

    name: str
    folder: Path
    tuned: Tuned
    device: torch.device
    inside: list[Stage]
    rest: list[Stage]
    family: tuple

    @property
    def pixels(self) -> Pixels:
        return self.tuned.pixels

    @cached_property
    def stages_agree(self) -> bool:
        """Whether the stages, one after the other, give what the model gives; tried with one image."""
        image = self.pixels.noise(1).to(self.device)
        model = self.tuned.model
        whole, x = model(image), image
        for stage in (*self.inside, *self.rest):
            x = stage.run(x)
        return bool((model.head(model.joined(x)) - whole).abs().max() <= CLOSE * whole.abs().max())

    def about(self) -> dict:
        """What clients are told of it."""
        cfg = self.tuned.cfg
        return {
            "name": self.name,
            "backbone": cfg.DATA.FEATURE,
            "methods": methods_label(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT),
            "classes": self.tuned.class_names,
            "image_size": list(self.pixels.size),
            "bytes": learned_size(self.tuned.model),
            "sums_to_one": cfg.SOLVER.LOSS != "sigmoid",
        }


class Models:
    """Runs by name, in the order of loading; safe to use from several threads.

    Args:
        roots: the folders that runs may be loaded from.
        changes: KEY VALUE pairs that override every run's settings.
    """

    def __init__(self, roots: Sequence[Path], changes: Sequence[str], limits: Limits):
        self.roots = [root.resolve() for root in roots]
        self.changes = list(changes)
        self.limits = limits
        self._loaded: dict[str, Served] = {}
        self._backbones = Backbones(limits.models)
        self._lock = threading.Lock()  # one run is loaded at a time

    def __len__(self) -> int:
        return len(self._loaded)

    def all(self) -> list[Served]:
        return list(self._loaded.values())

    def get(self, name: str) -> Served:
        """Raises KeyError if there is none."""
        return self._loaded[name]

    def drop(self, name: str) -> Served:
        """Forget a model; images that are being computed are still answered. Raises KeyError if there is none."""
        return self._loaded.pop(name)

    def find(self, folder: str) -> Path:
        """The run's folder that a client means, in one of the roots or below it.

        Raises:
            FileNotFoundError: there is none, or it is elsewhere, which clients are not told apart.
        """
        for root in self.roots:
            try:
                path = run_at((root / folder).resolve())
                if path and (path / TUNED).resolve().is_relative_to(root):
                    return path
            except (OSError, ValueError, RuntimeError):  # a null byte, a name that is too long, a circle of links
                continue
        raise FileNotFoundError("there is no such run in the folders that the server was started with")

    def load(self, folder: Path, name: str = "") -> Served:
        """Read a run's folder.

        Raises:
            TooMany, Taken: it cannot be added.
            FileNotFoundError, ValueError: it is not a finished run, or does not fit its backbone's weights.
        """
        with self._lock:
            if len(self._loaded) >= self.limits.models:
                raise TooMany(f"{len(self._loaded)} models are loaded, which is the limit")
            if name in self._loaded:
                raise Taken(f"a model is called {name!r} already")
            started = time.perf_counter()
            served = self._read(folder, name or self._free_name(folder))
            self._loaded[served.name] = served
        seconds = time.perf_counter() - started
        logger.info("loaded %s from %s in %.0f ms", served.name, folder, 1000 * seconds)
        return served

    def _free_name(self, folder: Path) -> str:
        place = folder.resolve()
        place = place.parent if is_fit(place.parent) else place
        *_, above, own = (re.sub(r"[^A-Za-z0-9_.+=-]+", "-", part)[:40].strip("-.+=") for part in place.parts)
        own = own or "model"
        names = (own, f"{above}-{own}", *(f"{own}-{i}" for i in range(2, self.limits.models + 2)))
        return next(one for one in names if one not in self._loaded)

    def _read(self, folder: Path, name: str) -> Served:
        tuned = load_tuned(folder, self.changes, backbone=self._backbones.on_device)
        if tuned.pixels is None:
            raise CheckpointError(f"{folder} does not say how image files become inputs: save it by a run")
        tuned = replace(tuned, pixels=self._bounded(tuned.pixels))
        own, device = tuned.cfg, choose_device(tuned.cfg.DEVICE)
        tuned.model.to(device)
        # All that decides what the backbone's own stages compute.
        how = (*how_computed(own, device).values(), own.SOLVER.TF32, own.DETERMINISTIC, own.CUDNN_BENCHMARK)
        family = (*map(str, backbone_arguments(own)), own.MODEL.POOL, tuned.pixels, str(device), *how)
        return Served(name, folder, tuned, device, *untouched(tuned.model), family)

    def _bounded(self, pixels: Pixels) -> Pixels:
        if "DATA.MAX_PIXELS" in self.changes[::2]:
            return pixels
        return replace(pixels, max_pixels=min(pixels.max_pixels, self.limits.pixels))
