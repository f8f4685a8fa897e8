"""The pre-trained networks that several runs of one process start from, or were tuned on: each is read once."""

from functools import lru_cache

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..models.copies import sharing_copy
from ..models.vit_backbones.build import build_backbone
from ..models.vit_models import backbone_arguments
from .device import choose_device

KEPT = 2  # runs of one backbone come together: tuned ones, then those that are tested
CPU = torch.device("cpu")


class Backbones:
    """Gives copies that share the memory of their weights, see models/copies.py.

    Args:
        kept: how many networks, which stay in memory for those that come later.
    """

    def __init__(self, kept: int = KEPT):
        self._read = lru_cache(kept)(_read)

    def read(self, *arguments) -> None:
        """Find out whether the weights can be read and fit."""
        self._read(CPU, *arguments)

    def on_device(self, cfg: CfgNode) -> nn.Module:
        """A config's backbone, where it computes: for models that are used side by side."""
        return sharing_copy(self._read(choose_device(cfg.DEVICE), *backbone_arguments(cfg)))

    def on_cpu(self, *arguments) -> nn.Module:
        """The backbone of these ``backbone_arguments``: for models that are trained one after the other."""
        return sharing_copy(self._read(CPU, *arguments))


def _read(device: torch.device, *arguments) -> nn.Module:
    return build_backbone(*arguments).to(device)
