"""What runs of one process share: opened data, backbones, compiled networks, and facts about a model."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import simplejson
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ..configs.config import flatten
from ..data.loader import Loader
from ..data.opened import Data, open_data
from ..models.memo import Memo
from ..models.vit_models import TunedViT, backbone_arguments, build_model, require_methods_fit
from .backbones import Backbones
from .budget import Plan, plan

T = TypeVar("T")

KEPT = 2  # of each: runs of one task and backbone come together, tuned ones, then those that are tested


class Shared:
    """Every run of a process may be given the same one; a run with a new one shares nothing.

    The results are those of runs on their own: nothing that is kept depends on what a run learned.
    """

    def __init__(self):
        self._backbones = Backbones()
        self._data: OrderedDict[Hashable, Data] = OrderedDict()
        self._loaders: OrderedDict[Hashable, tuple[dict[str, Loader], list[str]]] = OrderedDict()
        self._facts: OrderedDict[Hashable, dict] = OrderedDict()
        self._compiled: OrderedDict[Hashable, tuple[TunedViT, dict]] = OrderedDict()
        self._fitting: OrderedDict[Hashable, None] = OrderedDict()
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()

    def require_methods_fit(self, cfg: CfgNode) -> None:
        """``models.vit_models.require_methods_fit``, once for each kind of model."""
        keys = [cfg.MODEL, cfg.FREQFIT, cfg.DATA.FEATURE, cfg.DATA.CROPSIZE, cfg.DATA.IMAGE_SIZE, cfg.DATA.RESIZE]
        _kept(self._fitting, simplejson.dumps(keys), lambda: require_methods_fit(cfg))

    def read_backbone(self, cfg: CfgNode) -> None:
        """Read the pre-trained network, whose weights may not fit, and keep it for ``model``."""
        self._backbones.read(*backbone_arguments(cfg))

    def plan(self, cfg: CfgNode, num_classes: int, device: torch.device) -> Plan | None:
        """How to stay within SOLVER.MEMORY_GB, if that is set.

        Raises:
            NoRoom: nothing fits.
        """
        if not cfg.SOLVER.MEMORY_GB:
            return None
        plain = cfg.clone()
        plain.defrost()
        if plain.MODEL.HEAD_INIT == "zero_shot":  # of the same shape, without texts
            plain.MODEL.HEAD_INIT = "auto"
        plain.SEED, plain.OUTPUT_DIR, plain.SOLVER.BASE_LR, plain.SOLVER.WEIGHT_DECAY = 0, "", 0.0, 0.0

        def make() -> Plan:
            return plan(plain, build_model(plain, num_classes, self._backbones.on_cpu), device)

        return _kept(self._plans, (plain.dump(), num_classes, device), make)

    def data(self, cfg: CfgNode) -> Data:
        """The opened task."""
        return _kept(self._data, _images_of(cfg), lambda: open_data(cfg))

    def loaders(self, cfg: CfgNode, data: Data, device: torch.device) -> tuple[dict[str, Loader], list[str]]:
        """Its loaders with this run's order of images, and the files left out."""
        loaders, corrupt = _kept(self._loaders, (_images_of(cfg), device), lambda: data.loaders(cfg, device))
        return {name: loader.altered(seed=cfg.SEED) for name, loader in loaders.items()}, corrupt

    def model(
        self, cfg: CfgNode, num_classes: int, device: torch.device, head: dict[str, Tensor] | None = None
    ) -> tuple[TunedViT, Memo]:
        """The model as a run starts with it, and what was computed for it before.

        Where a model of the same form is compiled already it is that one, with the new one's values.
        """
        model = build_model(cfg, num_classes, self._backbones.on_cpu, head).to(device)
        data, solver = cfg.DATA, cfg.SOLVER
        keys = [cfg.MODEL, cfg.FREQFIT, data.FEATURE, data.CROPSIZE, data.IMAGE_SIZE, data.RESIZE]
        keys += [solver.AMP, solver.TF32, solver.DROP_PATH]
        form = (simplejson.dumps(keys), num_classes, device)
        fresh, networks = model, {}
        if cfg.MODEL.COMPILE:
            model, networks = _kept(self._compiled, form, lambda: (fresh, {}))
            if model is not fresh:
                _start_again(model, fresh)
        return model, Memo(_kept(self._facts, (form, cfg.SEED), dict), networks)

    def untouched(self, cfg: CfgNode, head: dict[str, Tensor], device: torch.device) -> TunedViT:
        """The pre-trained ViT with its zero-shot head, before any method."""
        plain = cfg.clone()
        plain.defrost()
        plain.MODEL.TRANSFER_TYPE, plain.FREQFIT = "linear", ""
        return build_model(plain, len(head["last_layer.bias"]), self._backbones.on_cpu, head).to(device).eval()


def _kept(store: OrderedDict, key: Hashable, make: Callable[[], T]) -> T:
    """What ``store`` has for ``key``, made if it has nothing; the least recently used goes."""
    if key not in store:
        store[key] = make()
    store.move_to_end(key)
    while len(store) > KEPT:
        store.popitem(last=False)
    return store[key]


def _images_of(cfg: CfgNode) -> str:
    """All that decides which images there are and how they are read."""
    return simplejson.dumps([flatten(cfg.DATA), cfg.DEVICE])


@torch.no_grad()
def _start_again(kept: TunedViT, fresh: TunedViT) -> None:
    """Give ``kept`` the values of ``fresh``, to the last buffer."""
    theirs = dict(fresh.named_parameters()) | dict(fresh.named_buffers())
    for name, tensor in (*kept.named_parameters(), *kept.named_buffers()):
        if not torch.equal(tensor, theirs[name]):  # otherwise both may share their memory
            tensor.copy_(theirs[name])
    for param in kept.parameters():
        param.grad = None
    kept.train()
