"""The families of timm's networks that methods work on. To add one: its file in this folder, and its line below."""

from torch import nn

from .base import Family, Tokens
from .convnext import ConvNeXt
from .swin_transformer import Swin
from .vision_transformer import ViT

FAMILIES: tuple[Family, ...] = (
    ViT(),
    Swin(),
    ConvNeXt(),
)


def family_of(vit: nn.Module) -> Family:
    """The family of a network.

    Raises:
        ValueError: it is of none.
    """
    for family in FAMILIES:
        if isinstance(vit, family.network):
            return family
    names = [family.network.__name__ for family in FAMILIES]
    raise ValueError(f"methods work on timm's {', '.join(names[:-1])} and {names[-1]}; this is a {type(vit).__name__}")


def tokens_of(vit: nn.Module, pool: str = "") -> Tokens | None:
    """The sequence in a ViT's blocks; None for networks with maps of several sizes instead, such as Swin.

    Args:
        pool: MODEL.POOL.

    Raises:
        ValueError: another kind of network.
    """
    return family_of(vit).tokens(vit, pool)
