"""Swin and ConvNeXt under VPT's names (Jia et al., 2022, arXiv:2203.12119), with VPT's rates, and DINOv3's ConvNeXt."""

from .. import convert
from ..backbone import Backbone
from .self_supervised import DINOV3


def _swin(arch: str, drop_path: float, file: str = "") -> Backbone:
    file = file or f"{arch}.pth"
    url = f"https://github.com/SwinTransformer/storage/releases/download/v1.0.0/{file}"
    return Backbone(arch, (file,), convert.swin, url, "mit", pool="avg", drop_path=drop_path)


def _convnext(size: str, file: str, url: str = "") -> Backbone:
    url = url or f"https://dl.fbaipublicfiles.com/convnext/{file}"
    licence = "dinov3-license" if url == DINOV3 else "mit"
    return Backbone(f"convnext_{size}", (file,), convert.convnext, url, licence, pool="avg")


ROWS = {
    # Swin (Liu et al., 2021, arXiv:2103.14030).
    "swint_imagenet": _swin("swin_tiny_patch4_window7_224", 0.2),
    "swins_imagenet": _swin("swin_small_patch4_window7_224", 0.3),
    "swinb_imagenet_224": _swin("swin_base_patch4_window7_224", 0.5),
    "swinb_imagenet_384": _swin("swin_base_patch4_window12_384", 0.5),
    "swinb_imagenet22k_224": _swin("swin_base_patch4_window7_224", 0.5, "swin_base_patch4_window7_224_22k.pth"),
    "swinb_imagenet22k_384": _swin("swin_base_patch4_window12_384", 0.5, "swin_base_patch4_window12_384_22k.pth"),
    "swinl_imagenet22k_224": _swin("swin_large_patch4_window7_224", 0.5, "swin_large_patch4_window7_224_22k.pth"),
    # Self-supervised by MoBY (Xie et al., 2021, arXiv:2105.04553).
    "swint_imagenet_ssl": Backbone(
        "swin_tiny_patch4_window7_224",
        ("moby_swin_t_300ep_pretrained.pth",),
        convert.moby,
        "https://github.com/SwinTransformer/storage/releases/download/v1.0.3/moby_swin_t_300ep_pretrained.pth",
        "",
        pool="avg",
        drop_path=0.2,
    ),
    # ConvNeXt (Liu et al., 2022, arXiv:2201.03545).
    "imagenet_sup_rnx_tiny": _convnext("tiny", "convnext_tiny_1k_224_ema.pth"),
    "imagenet_sup_rnx_small": _convnext("small", "convnext_small_1k_224_ema.pth"),
    "imagenet_sup_rnx_base": _convnext("base", "convnext_base_1k_224_ema.pth"),
    "imagenet22k_sup_rnx_base": _convnext("base", "convnext_base_22k_224.pth"),
    "imagenet22k_sup_rnx_large": _convnext("large", "convnext_large_22k_224.pth"),
    "imagenet22k_sup_rnx_xlarge": _convnext("xlarge", "convnext_xlarge_22k_224.pth"),
    # DINOv3's (Siméoni et al., 2025, arXiv:2508.10104).
    "dinov3_convnext_tiny": _convnext("tiny", "dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth", DINOV3),
    "dinov3_convnext_small": _convnext("small", "dinov3_convnext_small_pretrain_lvd1689m-296db49d.pth", DINOV3),
    "dinov3_convnext_base": _convnext("base", "dinov3_convnext_base_pretrain_lvd1689m-801f2ba9.pth", DINOV3),
    "dinov3_convnext_large": _convnext("large", "dinov3_convnext_large_pretrain_lvd1689m-61fa432d.pth", DINOV3),
}
