"""The model zoo: the backbones that ``DATA.FEATURE`` names, and where their weights are.

To add a backbone: one row in ``MODEL_ZOO``, and a converter in convert.py if its file format is new.
"""

import re
from collections.abc import Callable
from pathlib import Path

import timm

from ...utils.shipped import shipped
from ..families import FAMILIES
from . import convert
from .backbone import HALF, OPENAI, Backbone, MeanStd
from .from_timm import problem_with
from .hugging_face.checkpoint import find_tensors, read_checkpoint
from .hugging_face.place import HUB, is_checkpoint
from .refusals import unknown_backbone


def _google(arch: str, file: str, folder: str = "imagenet21k") -> Backbone:
    url = f"https://storage.googleapis.com/vit_models/{folder}/{file}"
    renamed = f"imagenet21k_{file}"  # what VPT and FreqFiT ask their users to rename it to
    return Backbone(arch, (file, renamed), convert.google, url, "apache-2.0", mean_std=HALF, dropout=0.1)


def _mae(size: str, arch: str, how: Callable = convert.mae) -> Backbone:
    file = f"mae_pretrain_vit_{size}.pth"
    url = f"https://dl.fbaipublicfiles.com/mae/pretrain/{file}"
    return Backbone(arch, (file,), how, url, "cc-by-nc-4.0", pool="avg", drop_path=0.1)


def _moco(*files: str) -> Backbone:
    url = f"https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/{files[0]}"
    return Backbone("vit_base_patch16_224", files, convert.moco, url, "cc-by-nc-4.0")


def _clip(arch: str, file: str, sha256: str) -> Backbone:
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"
    return Backbone(arch, (file,), convert.clip, url, "mit", mean_std=OPENAI)


def _dino(arch: str, name: str) -> Backbone:
    file = f"dino_{name}_pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dino/dino_{name}_pretrain/{file}"
    return Backbone(arch, (file,), convert.dino, url, "apache-2.0")


def _dinov2(size: str, letter: str, registers: bool = False) -> Backbone:
    arch = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
    file = f"dinov2_vit{letter}14_{'reg4_' if registers else ''}pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{letter}14/{file}"
    return Backbone(arch, (file,), convert.dinov2, url, "apache-2.0", resize="bicubic")


MODEL_ZOO: dict[str, Backbone] = {
    # The demo's: pre-trained on letters and symbols by `python -m src.tools.pretrain_demo`.
    "vit_micro_glyphs": Backbone(
        "vit_base_patch16_224",
        ("vit_micro_glyphs.npz",),
        convert.google,
        "it is made by `python -m src.tools.pretrain_demo`",
        "apache-2.0",
        mean_std=HALF,
        interpolation="bilinear",
        arguments=dict(img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4),
    ),
    # Supervised, ImageNet-21k (Dosovitskiy et al., 2021, arXiv:2010.11929).
    "sup_vitb8_imagenet21k": _google("vit_base_patch8_224", "ViT-B_8.npz"),
    "sup_vitb16_imagenet21k": _google("vit_base_patch16_224", "ViT-B_16.npz"),
    "sup_vitb32_imagenet21k": _google("vit_base_patch32_224", "ViT-B_32.npz"),
    "sup_vitl16_imagenet21k": _google("vit_large_patch16_224", "ViT-L_16.npz"),
    "sup_vitl32_imagenet21k": _google("vit_large_patch32_224", "ViT-L_32.npz"),
    "sup_vith14_imagenet21k": _google("vit_huge_patch14_224", "ViT-H_14.npz"),
    # The same, then fine-tuned on ImageNet-1k at 224: VPT's "_224" files, under VPT's names.
    "sup_vitb16_224": _google("vit_base_patch16_224", "ViT-B_16-224.npz", "imagenet21k+imagenet2012"),
    "sup_vitl16_224": _google("vit_large_patch16_224", "ViT-L_16-224.npz", "imagenet21k+imagenet2012"),
    # MAE (He et al., 2022, arXiv:2111.06377); "_freshnorm": as VPT loads it, without the file's final norm.
    "mae_vitb16": _mae("base", "vit_base_patch16_224"),
    "mae_vitl16": _mae("large", "vit_large_patch16_224"),
    "mae_vith14": _mae("huge", "vit_huge_patch14_224"),
    "mae_vitb16_freshnorm": _mae("base", "vit_base_patch16_224", convert.mae_fresh_norm),
    # MoCo v3 (Chen et al., 2021, arXiv:2104.02057): the pre-training file, as FreqFiT, and the linear probe's, as VPT.
    "mocov3_vitb16": _moco("vit-b-300ep.pth.tar"),
    "mocov3_vitb": _moco("linear-vit-b-300ep.pth.tar", "mocov3_linear-vit-b-300ep.pth.tar"),
    # CLIP image towers (Radford et al., 2021, arXiv:2103.00020).
    "clip_vitb16": _clip(
        "vit_base_patch16_clip_quickgelu_224",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    ),
    "clip_vitb32": _clip(
        "vit_base_patch32_clip_quickgelu_224",
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    "clip_vitl14": _clip(
        "vit_large_patch14_clip_quickgelu_224",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    # DINO (Caron et al., 2021, arXiv:2104.14294).
    "dino_vits16": _dino("vit_small_patch16_224", "deitsmall16"),
    "dino_vits8": _dino("vit_small_patch8_224", "deitsmall8"),
    "dino_vitb16": _dino("vit_base_patch16_224", "vitbase16"),
    "dino_vitb8": _dino("vit_base_patch8_224", "vitbase8"),
    # DINOv2 (Oquab et al., 2023, arXiv:2304.07193) and with registers (Darcet et al., 2023, arXiv:2309.16588).
    "dinov2_vits14": _dinov2("small", "s"),
    "dinov2_vitb14": _dinov2("base", "b"),
    "dinov2_vitl14": _dinov2("large", "l"),
    "dinov2_vits14_reg": _dinov2("small", "s", registers=True),
    "dinov2_vitb14_reg": _dinov2("base", "b", registers=True),
    "dinov2_vitl14_reg": _dinov2("large", "l", registers=True),
}

# Other names that VPT and FreqFiT use for a row.
ALIASES = {
    "sup_vitb8": "sup_vitb8_imagenet21k",
    "sup_vitb16": "sup_vitb16_imagenet21k",
    "sup_vitl16": "sup_vitl16_imagenet21k",
    "imagenet_supervised": "sup_vitb16_imagenet21k",
}


def find_backbone(name: str) -> Backbone | None:
    """The row of ``DATA.FEATURE``, or what ``hf:<...>`` names; None for ``timm:<name>``, which timm knows.

    Raises:
        ValueError: an unknown name, for which the message lists the known ones; a checkpoint that cannot be.
    """
    name = ALIASES.get(name, name)
    if is_checkpoint(name):
        try:
            return read_checkpoint(name)
        except ValueError as error:
            raise ValueError(f"DATA.FEATURE {name!r}: {error}") from error
    if name.startswith("timm:"):
        if problem := problem_with(name[len("timm:") :].split(".")[0]):
            raise ValueError(f"DATA.FEATURE {name!r}: {problem}")
        return None
    if name not in MODEL_ZOO:
        raise ValueError(unknown_backbone(name, MODEL_ZOO, [family.title for family in FAMILIES]))
    return MODEL_ZOO[name]


def find_weights(name: str, root: Path, weight_path: str = "") -> Path | None:
    """The backbone's weights file; None where timm's own cache has it or will fetch it.

    Raises:
        FileNotFoundError: it is missing; the message says what to download, from where, and where to put it.
    """
    row = find_backbone(name)
    if weight_path:
        if not Path(weight_path).is_file():
            raise FileNotFoundError(f"MODEL.WEIGHT_PATH {weight_path} is missing")
        return Path(weight_path)
    if row is None:
        return None
    if is_checkpoint(name):
        return find_tensors(name)
    for file in row.files:
        if (path := in_repository(Path(root) / file)).is_file():
            return path
    where = Path(root).absolute() / row.files[0]
    get = f"put {row.url} at {where}" if row.url.startswith("http") else f"{where} is not there; {row.url}"
    raise FileNotFoundError(f"the weights of {name} are missing: {get} (see pretrained/README.md)")


def in_repository(path: Path) -> Path:
    """A relative path as it is if something is there, else taken from where ViTune's own ``pretrained`` is."""
    return path if path.is_absolute() or path.exists() else shipped("pretrained").parent / path


def patch_size(row: Backbone) -> int:
    """Side of a row's square patches, in pixels."""
    return row.arguments.get("patch_size") or int(re.search(r"patch(\d+)", row.arch).group(1))


def norm_of_all(name: str) -> bool:
    """Whether a backbone's final norm, which follows an average here, was pre-trained on every token."""
    row = find_backbone(name)
    return row is not None and row.convert is convert.mae


def licence(name: str) -> str:
    """Of a backbone's weights, as the Hugging Face Hub calls it; "" where none is stated."""
    row = find_backbone(name)
    return row.licence if row else timm.get_pretrained_cfg(name[len("timm:") :]).license or ""


def hub_id(name: str) -> str:
    """What the Hugging Face Hub calls a backbone's weights; "" where it is not known to have them."""
    if name.startswith("timm:"):
        return f"timm/{name[len('timm:') :]}"
    url = find_backbone(name).url
    return url.removeprefix(HUB) if url.startswith(HUB) else ""


def input_config(name: str) -> tuple[MeanStd, str]:
    """(Mean, standard deviation) per RGB channel in [0, 1] of the images the backbone was pre-trained on, and how those
    were resized: "bilinear" or "bicubic"."""
    row = find_backbone(name)
    if row is not None:
        return row.mean_std, row.interpolation
    pretrained = timm.get_pretrained_cfg(name[len("timm:") :])
    interpolation = pretrained.interpolation if pretrained.interpolation == "bilinear" else "bicubic"
    return (tuple(pretrained.mean), tuple(pretrained.std)), interpolation
