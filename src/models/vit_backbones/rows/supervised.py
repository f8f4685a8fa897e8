"""ViTs that learned from labels: Google's, and EVA-02 after its fine-tuning on ImageNet-22k."""

from .. import convert
from ..backbone import HALF, OPENAI, Backbone


def _google(arch: str, file: str, folder: str = "imagenet21k") -> Backbone:
    url = f"https://storage.googleapis.com/vit_models/{folder}/{file}"
    renamed = f"imagenet21k_{file}"  # what VPT and FreqFiT ask their users to rename it to
    return Backbone(arch, (file, renamed), convert.google, url, "apache-2.0", mean_std=HALF, dropout=0.1)


def _augreg(arch: str, settings: str) -> Backbone:
    file = f"{settings}.npz"
    url = f"https://storage.googleapis.com/vit_models/augreg/{file}"
    return Backbone(arch, (file,), convert.google, url, "apache-2.0", mean_std=HALF, resize="bicubic")


def _eva02(size: str, name: str) -> Backbone:
    file = f"eva02_{name}_medft_in21k_p14.pt"
    url = f"https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/cls/in21k/{file}"
    arch = f"eva02_{size}_patch14_448"
    return Backbone(arch, (file,), convert.eva02, url, "mit", mean_std=OPENAI, pool="avg", resize="bicubic")


ROWS = {
    # ImageNet-21k (Dosovitskiy et al., 2021, arXiv:2010.11929).
    "sup_vitb8_imagenet21k": _google("vit_base_patch8_224", "ViT-B_8.npz"),
    "sup_vitb16_imagenet21k": _google("vit_base_patch16_224", "ViT-B_16.npz"),
    "sup_vitb32_imagenet21k": _google("vit_base_patch32_224", "ViT-B_32.npz"),
    "sup_vitl16_imagenet21k": _google("vit_large_patch16_224", "ViT-L_16.npz"),
    "sup_vitl32_imagenet21k": _google("vit_large_patch32_224", "ViT-L_32.npz"),
    "sup_vith14_imagenet21k": _google("vit_huge_patch14_224", "ViT-H_14.npz"),
    # The same, then fine-tuned on ImageNet-1k at 224: VPT's "_224" files, under VPT's names.
    "sup_vitb16_224": _google("vit_base_patch16_224", "ViT-B_16-224.npz", "imagenet21k+imagenet2012"),
    "sup_vitl16_224": _google("vit_large_patch16_224", "ViT-L_16-224.npz", "imagenet21k+imagenet2012"),
    # VQT's ViT of ImageNet-1k (Tu et al., 2023, arXiv:2212.03220), in Google's format, with ImageNet's pixels as VQT
    # feeds it; who trained it and on which terms is not stated.
    "sup_vitb16_imagenet1k": Backbone(
        "vit_base_patch16_224",
        ("imagenet1k_ViT-B_16.npz",),
        convert.google,
        "https://drive.google.com/file/d/1ruqA7gRkvkoM_QFrT0JI23XXZNnwqXBK",
        "",
        dropout=0.1,
    ),
    # AugReg on ImageNet-21k (Steiner et al., 2022, arXiv:2106.10270): those that timm chose, and SSF.
    "augreg_vitti16_imagenet21k": _augreg(
        "vit_tiny_patch16_224", "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
    ),
    "augreg_vits32_imagenet21k": _augreg(
        "vit_small_patch32_224", "S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
    ),
    "augreg_vits16_imagenet21k": _augreg(
        "vit_small_patch16_224", "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"
    ),
    "augreg_vitb32_imagenet21k": _augreg(
        "vit_base_patch32_224", "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0"
    ),
    "augreg_vitb16_imagenet21k": _augreg(
        "vit_base_patch16_224", "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
    ),
    "augreg_vitb8_imagenet21k": _augreg(
        "vit_base_patch8_224", "B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
    ),
    "augreg_vitl16_imagenet21k": _augreg(
        "vit_large_patch16_224", "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"
    ),
    # EVA-02 (Fang et al., 2023, arXiv:2303.11331), after masked pre-training on ImageNet-22k or 38 million images.
    "eva02_vitb14_imagenet22k": _eva02("base", "B_pt_in21k"),
    "eva02_vitl14_imagenet22k": _eva02("large", "L_pt_in21k"),
    "eva02_vitl14_m38m_imagenet22k": _eva02("large", "L_pt_m38m"),
}
