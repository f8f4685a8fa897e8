"""The families of timm's networks that methods work on. To add one: its file in this folder, and its line below."""

from torch import nn

from .base import Family
from .beit import BEiT
from .cait import CaiT
from .convnext import ConvNeXt
from .convolutional import EfficientNet, MobileNetV3, RegNet, ResNet, ResNetV2
from .davit import DaViT
from .eva import Eva
from .fastvit import FastViT
from .hiera import Hiera
from .maxxvit import MaxViT
from .mvitv2 import MViTv2
from .naflexvit import NaFlex
from .stages import Tokens
from .swin_transformer import Swin
from .swin_transformer_v2 import SwinV2
from .unknown import Unknown
from .vision_transformer import ViT
from .vision_transformer_sam import SAM
from .xcit import XCiT

FAMILIES: tuple[Family, ...] = (
    ViT(),
    Eva(),
    BEiT(),
    NaFlex(),
    Swin(),
    SwinV2(),
    Hiera(),
    SAM(),
    MViTv2(),
    CaiT(),
    XCiT(),
    DaViT(),
    MaxViT(),
    FastViT(),
    ConvNeXt(),
    ResNet(),
    ResNetV2(),
    RegNet(),
    EfficientNet(),
    MobileNetV3(),
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
