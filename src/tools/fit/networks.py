"""Which pre-trained networks can be tried: their weights are on this disk, and they take the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

from ...configs.files import ConfigError
from ...models.vit_backbones import zoo
from ...models.vit_backbones.build import architecture
from ...models.vit_backbones.hugging_face.place import cached, is_checkpoint
from ..list.backbones import downloaded, pixels, zoo_file

LARGEST = 224  # pixels; networks that were pre-trained on larger images see this size unless DATA.CROPSIZE says more


@dataclass
class Network:
    """A pre-trained network on this disk.

    Attributes:
        name: DATA.FEATURE.
        size: side of its images, in pixels.
        parameters: number of them.
        why_not: why it is not tried; "" if it is.
    """

    name: str
    size: int = 0
    parameters: int = 0
    why_not: str = ""


def require_here(names: Sequence[str], root: str) -> None:
    """Raises ConfigError, FileNotFoundError: one of these is unknown, or its weights are not in ``root``."""
    for name in names:
        try:
            zoo.find_backbone(name)
        except ValueError as error:
            raise ConfigError(f"backbones: {error}") from error
        zoo.find_weights(name, Path(root))


def on_disk(root: str, size: int = 0, only: Sequence[str] = ()) -> list[Network]:
    """Networks whose weights are here, those that cannot be tried with the reason.

    Args:
        root: MODEL.MODEL_ROOT.
        size: DATA.CROPSIZE; 0: the network's own, up to LARGEST.
        only: names to take instead of all that are found.

    Raises:
        FileNotFoundError: there is none that can be used.
    """
    names = list(only)
    if not names:
        names = [name for name in zoo.MODEL_ZOO if zoo_file(name, root)]
        names += downloaded() + [name for name in cached() if _is_encoder(name)]
    networks = [_looked_at(name, size) for name in names]
    if not any(not network.why_not for network in networks):
        reasons = "".join(f"\n  - {network.name}: {network.why_not}" for network in networks)
        raise FileNotFoundError(
            f"no pre-trained network can be used here: put weights into {Path(root).absolute()} "
            f"(vitune list backbones says which and from where){reasons}"
        )
    return networks


def _is_encoder(name: str) -> bool:
    try:
        return zoo.find_weights(name, Path()) is not None and zoo.find_backbone(name) is not None
    except (ValueError, OSError):  # a model of another kind, or without weights
        return False


def _looked_at(name: str, size: int) -> Network:
    network = Network(name)
    try:
        network.size = size or min(_own_size(name), LARGEST)
        with torch.device("meta"):
            network.parameters = _count(architecture(name, (network.size, network.size)))
    except ValueError as error:
        network.why_not = str(error).splitlines()[0]
    return network


def _own_size(name: str) -> int:
    """Side of the images that a network was pre-trained on."""
    if is_checkpoint(name) or not name.startswith("timm:"):
        row = zoo.find_backbone(name)
        return int(pixels(row))
    return timm.get_pretrained_cfg(name.removeprefix("timm:")).input_size[1]


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
