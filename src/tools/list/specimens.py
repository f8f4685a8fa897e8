"""Small networks of every family and variant, with random weights: on them every method is tried (cells.py).

To add one: its line in SPECIMENS.
"""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ...models.families import family_of


@dataclass(frozen=True, eq=False)
class Specimen:
    """What ``timm.create_model`` makes such a network of: timm's name and arguments, and a title for tables."""

    title: str
    name: str
    arguments: dict[str, Any]

    def build(self, **arguments: Any) -> nn.Module:
        """The network in double precision and eval mode, no bias, norm or layer scale at its initial 0 or 1."""
        torch.manual_seed(1)
        vit = timm.create_model(self.name, num_classes=0, **{**self.arguments, **arguments}).eval().double()
        generator = torch.Generator().manual_seed(3)
        for param in vit.parameters():
            param.data.add_(0.05 * torch.randn(param.shape, generator=generator))
        return vit

    def family(self) -> str:
        """The title of its family."""
        with torch.device("meta"):
            return family_of(timm.create_model(self.name, num_classes=0, **self.arguments)).title

    def images(self, vit: nn.Module) -> Tensor:
        """Two images of the network's size."""
        size = (64, 64) if family_of(vit).any_size else family_of(vit).image_size(vit)
        return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()


def _tokens(title: str, name: str, patches: int = 4, **arguments: Any) -> Specimen:
    """A network of tokens: two narrow blocks, ``patches`` x ``patches`` patches."""
    patch = int(name.split("patch")[1].split("_")[0]) if "patch" in name else 16
    small = dict(img_size=patches * patch, depth=2, embed_dim=32, num_heads=2)
    return Specimen(title, name, {**small, **arguments})


STAGES: dict[str, Any] = dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4))
WIDTHS: dict[str, Any] = dict(dims=(8, 16, 24, 32), depths=(1, 1, 2, 1))
# By section of the table. Titles are unique.
SPECIMENS: dict[str, list[Specimen]] = {
    "VisionTransformer": [
        _tokens("ViT", "vit_small_patch16_224"),
        _tokens("CLIP", "vit_base_patch16_clip_224"),
        _tokens("average", "vit_base_patch16_224", class_token=False, global_pool="avg"),
        _tokens("registers", "vit_small_patch14_reg4_dinov2"),
        _tokens("SigLIP", "vit_base_patch16_siglip_224"),
        _tokens("DINOv2 giant", "vit_giant_patch14_dinov2", embed_dim=48),
        _tokens("AIMv2", "aimv2_large_patch14_224"),
        _tokens("InternViT", "vit_intern300m_patch14_448"),
        _tokens("BEiT-3", "beit3_base_patch16_224"),
        _tokens("post-norm", "vit_base_patch16_rpn_224"),
        _tokens("parallel", "vit_small_patch16_18x2_224"),
        _tokens("pwee", "vit_pwee_patch16_reg1_gap_256"),
        _tokens("dpwee", "vit_dpwee_patch16_reg1_gap_256"),
        _tokens("DeiT-3", "deit3_small_patch16_224"),
        _tokens("distilled DeiT", "deit_tiny_distilled_patch16_224"),
        _tokens("hybrid", "vit_tiny_r_s16_p8_224", img_size=64),
    ],
    "Eva": [
        _tokens("DINOv3", "vit_small_patch16_dinov3"),
        _tokens("DINOv3 with biases", "vit_small_patch16_dinov3_qkvb"),
        _tokens("DINOv3 S+", "vit_small_plus_patch16_dinov3_qkvb"),
        _tokens("EVA-02 T", "eva02_tiny_patch14_224", embed_dim=48),
        _tokens("EVA-02 B", "eva02_base_patch14_224", embed_dim=48),
        _tokens("PE core", "vit_pe_core_tiny_patch16_384"),
        _tokens("PE spatial", "vit_pe_spatial_tiny_patch16_512"),
        _tokens("RoPE axial", "vit_small_patch16_rope_224"),
        _tokens("RoPE mixed", "vit_small_patch16_rope_mixed_ape_224"),
    ],
    "Other networks of tokens": [
        _tokens("BEiT", "beit_base_patch16_224"),
        _tokens("BEiT v2", "beitv2_base_patch16_224"),
        _tokens("NaFlex", "naflexvit_base_patch16_gap"),
        _tokens("NaFlex map", "naflexvit_base_patch16_siglip"),
        _tokens("RADIO", "naflexvit_base_patch16_radio_v3"),
        _tokens("CaiT", "cait_xxs24_224"),
        _tokens("XCiT", "xcit_nano_12_p16_224"),
    ],
    "Networks of maps": [
        Specimen("Swin", "swin_tiny_patch4_window7_224", dict(img_size=64, window_size=4, **STAGES)),
        Specimen("Swin V2", "swinv2_tiny_window8_256", dict(img_size=64, window_size=4, **STAGES)),
        Specimen("Hiera", "hiera_tiny_224", dict(img_size=64, embed_dim=16, stages=(1, 1, 1, 1))),
        _tokens("SAM", "samvit_base_patch16", window_size=3, global_attn_indexes=(1,)),
        Specimen("DaViT", "davit_tiny", dict(embed_dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))),
        Specimen(
            "MaxViT",
            "maxvit_rmlp_pico_rw_256",
            dict(img_size=64, embed_dim=(32, 32, 32, 32), depths=(1, 1, 1, 1), stem_width=16),
        ),
        Specimen("ConvNeXt", "convnext_tiny", WIDTHS),
        Specimen("ConvNeXt A", "convnext_atto", WIDTHS),
        Specimen("ConvNeXt V2", "convnextv2_tiny", WIDTHS),
    ],
    "Convolutional networks": [
        Specimen("FastViT", "fastvit_sa12", dict(embed_dims=(16, 16, 16, 32), layers=(1, 1, 1, 1))),
        Specimen("ResNet", "resnet18", dict(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), stem_width=8)),
        Specimen("ResNet v2", "resnetv2_50", dict(layers=(1, 1, 1, 1), channels=(16, 16, 16, 32))),
        Specimen("RegNet", "regnety_002", {}),
        Specimen("EfficientNet", "test_efficientnet", {}),
        Specimen("MobileNet v3", "mobilenetv3_small_050", {}),
    ],
    "Networks of no known family": [
        _tokens("relative", "vit_relpos_small_patch16_224"),
        Specimen("Swin V2 CR", "swinv2_cr_tiny_224", dict(img_size=64, window_size=4, **STAGES)),
        Specimen(
            "CoaT",
            "coat_tiny",
            dict(img_size=64, embed_dims=(16, 16, 16, 16), serial_depths=(1, 1, 1, 1), parallel_depth=1),
        ),
        Specimen("PVT v2", "pvt_v2_b0", dict(depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 2, 2))),
    ],
}
