"""The families of timm's networks that methods work on. To add one: its file in this folder, and its line below."""

from torch import nn

from .base import Family
from .beit import BEiT
from .convnext import ConvNeXt
from .eva import Eva
from .hiera import Hiera
from .naflexvit import NaFlex
from .stages import Tokens
from .swin_transformer import Swin
from .swin_transformer_v2 import SwinV2
from .unknown import Unknown
from .vision_transformer import ViT
from .vision_transformer_sam import SAM

FAMILIES: tuple[Family, ...] = (
    ViT(),
    Eva(),
    BEiT(),
    NaFlex(),
    Swin(),
    SwinV2(),
    Hiera(),
    SAM(),
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
