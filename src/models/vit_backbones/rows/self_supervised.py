"""Self-supervised ViTs: MAE, MoCo v3, DINO, DINOv2, DINOv3, EVA-02."""

from collections.abc import Callable

from .. import convert
from ..backbone import OPENAI, Backbone

SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
# Where DINOv3's files are: Meta sends their addresses.
DINOV3 = "accept its licence at https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/, and Meta sends it"


def _mae(size: str, arch: str, how: Callable = convert.mae) -> Backbone:
    file = f"mae_pretrain_vit_{size}.pth"
    url = f"https://dl.fbaipublicfiles.com/mae/pretrain/{file}"
    all_tokens = how is convert.mae
    return Backbone(arch, (file,), how, url, "cc-by-nc-4.0", pool="avg", drop_path=0.1, norm_of_all=all_tokens)


def _moco(*files: str) -> Backbone:
    url = f"https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/{files[0]}"
    return Backbone("vit_base_patch16_224", files, convert.moco, url, "cc-by-nc-4.0")


def _dino(arch: str, name: str) -> Backbone:
    file = f"dino_{name}_pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dino/dino_{name}_pretrain/{file}"
    return Backbone(arch, (file,), convert.dino, url, "apache-2.0")


def _dinov2(size: str, letter: str, registers: bool = False) -> Backbone:
    arch = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
    file = f"dinov2_vit{letter}14_{'reg4_' if registers else ''}pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{letter}14/{file}"
    return Backbone(arch, (file,), convert.dinov2, url, "apache-2.0", resize="bicubic")


def _dinov3(size: str, name: str, digits: str, satellite: bool = False) -> Backbone:
    """Pooled as timm does it; MODEL.POOL token is Meta's way. timm's "qkvb" has Meta's biases of queries and values."""
    images = "sat493m" if satellite else "lvd1689m"
    file = f"dinov3_{name}_pretrain_{images}-{digits}.pth"
    arch = f"vit_{size}_patch16_dinov3{'' if size == '7b' else '_qkvb'}"
    pixels = {"mean_std": SATELLITE} if satellite else {}
    return Backbone(arch, (file,), convert.dinov3, DINOV3, "dinov3-license", pool="avg", resize="bicubic", **pixels)


def _eva02(size: str, name: str) -> Backbone:
    file = f"eva02_{name}_p14.pt"
    url = f"https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/pt/{file}"
    arch = f"eva02_{size}_patch14_224"
    row = dict(mean_std=OPENAI, pool="avg", resize="bicubic", norm_of_all=True)
    return Backbone(arch, (file,), convert.eva02, url, "mit", **row)


ROWS = {
    # MAE (He et al., 2022, arXiv:2111.06377); "_freshnorm": as VPT loads it, without the file's final norm.
    "mae_vitb16": _mae("base", "vit_base_patch16_224"),
    "mae_vitl16": _mae("large", "vit_large_patch16_224"),
    "mae_vith14": _mae("huge", "vit_huge_patch14_224"),
    "mae_vitb16_freshnorm": _mae("base", "vit_base_patch16_224", convert.mae_fresh_norm),
    # MoCo v3 (Chen et al., 2021, arXiv:2104.02057): the pre-training file, as FreqFiT, and the linear probe's, as VPT.
    "mocov3_vitb16": _moco("vit-b-300ep.pth.tar"),
    "mocov3_vitb": _moco("linear-vit-b-300ep.pth.tar", "mocov3_linear-vit-b-300ep.pth.tar"),
    # DINO (Caron et al., 2021, arXiv:2104.14294).
    "dino_vits16": _dino("vit_small_patch16_224", "deitsmall16"),
    "dino_vits8": _dino("vit_small_patch8_224", "deitsmall8"),
    "dino_vitb16": _dino("vit_base_patch16_224", "vitbase16"),
    "dino_vitb8": _dino("vit_base_patch8_224", "vitbase8"),
    # DINOv2 (Oquab et al., 2023, arXiv:2304.07193) and with registers (Darcet et al., 2023, arXiv:2309.16588).
    "dinov2_vits14": _dinov2("small", "s"),
    "dinov2_vitb14": _dinov2("base", "b"),
    "dinov2_vitl14": _dinov2("large", "l"),
    "dinov2_vitg14": _dinov2("giant", "g"),
    "dinov2_vits14_reg": _dinov2("small", "s", registers=True),
    "dinov2_vitb14_reg": _dinov2("base", "b", registers=True),
    "dinov2_vitl14_reg": _dinov2("large", "l", registers=True),
    "dinov2_vitg14_reg": _dinov2("giant", "g", registers=True),
    # DINOv3 (Siméoni et al., 2025, arXiv:2508.10104), of web images and, "_sat", of images from satellites.
    "dinov3_vits16": _dinov3("small", "vits16", "08c60483"),
    "dinov3_vits16plus": _dinov3("small_plus", "vits16plus", "4057cbaa"),
    "dinov3_vitb16": _dinov3("base", "vitb16", "73cec8be"),
    "dinov3_vitl16": _dinov3("large", "vitl16", "8aa4cbdd"),
    "dinov3_vith16plus": _dinov3("huge_plus", "vith16plus", "7c1da9a5"),
    "dinov3_vit7b16": _dinov3("7b", "vit7b16", "a955f4ea"),
    "dinov3_vitl16_sat": _dinov3("large", "vitl16", "eadcf0ff", satellite=True),
    "dinov3_vit7b16_sat": _dinov3("7b", "vit7b16", "a6675841", satellite=True),
    # EVA-02 (Fang et al., 2023, arXiv:2303.11331): masked pre-training on ImageNet-22k or on 38 million images.
    "eva02_vitti14": _eva02("tiny", "Ti_pt_in21k"),
    "eva02_vits14": _eva02("small", "S_pt_in21k"),
    "eva02_vitb14": _eva02("base", "B_pt_in21k"),
    "eva02_vitl14": _eva02("large", "L_pt_in21k"),
    "eva02_vitl14_m38m": _eva02("large", "L_pt_m38m"),
}
