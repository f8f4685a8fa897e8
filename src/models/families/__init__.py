"""The families of timm's networks that methods work on. To add one: its file in this folder, and its line below."""

from torch import nn

from .base import Family
from .convnext import ConvNeXt
from .eva import Eva
from .stages import Tokens
from .swin_transformer import Swin
from .unknown import Unknown
from .vision_transformer import ViT

FAMILIES: tuple[Family, ...] = (
    ViT(),
    Eva(),
    Swin(),
    ConvNeXt(),
)
UNKNOWN = Unknown()


def family_of(vit: nn.Module) -> Family:
    """The family of a network; UNKNOWN for one of no family, on which some methods work."""
    return next((family for family in FAMILIES if isinstance(vit, family.network)), UNKNOWN)


def tokens_of(vit: nn.Module, pool: str = "") -> Tokens | None:
    """The sequence in a ViT's blocks; None for networks with maps of several sizes instead, such as Swin.

    Args:
        pool: MODEL.POOL.
    """
    return family_of(vit).tokens(vit, pool)
