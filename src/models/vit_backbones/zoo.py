"""The model zoo: from ``DATA.FEATURE`` to a timm VisionTransformer with its pre-trained weights.

To add a backbone: one row in ``MODEL_ZOO``, and a converter in convert.py if its file format is new.
"""

import difflib
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import scipy.ndimage
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...utils.shipped import shipped
from ..drop_path import set_drop_path
from ..families import FAMILIES, family_of
from ..families.base import Family
from . import convert
from .fit import require_fit, unwrapped
from .refusals import check_size, unknown_backbone
from .tensors import UNREADABLE, StateDict, read_content, reading

logger = logging.getLogger(__name__)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


MOST_CHANNELS = 16384  # of position embeddings that are resized


@dataclass(frozen=True)
class Backbone:
    """One row of the zoo."""

    arch: str | dict  # timm's name, or arguments of its VisionTransformer
    files: tuple[str, ...]  # accepted names under MODEL.MODEL_ROOT; the first is the publisher's
    convert: Callable[[Path], dict[str, Tensor]]
    url: str
    licence: str  # of the weights, by its name on the Hugging Face Hub, as their publisher or timm states it
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET  # of the images it was pre-trained on
    interpolation: str = "bicubic"  # of those images, as timm states it for these weights
    pool: str = "token"
    resize: str = "bilinear"  # of position embeddings, unless MODEL.POS_EMBED_RESIZE sets it
    dropout: float = 0.0  # VPT's rates; they act in end2end only
    drop_path: float = 0.0


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
        dict(img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4),
        ("vit_micro_glyphs.npz",),
        convert.google,
        "it is made by `python -m src.tools.pretrain_demo`",
        "apache-2.0",
        mean_std=HALF,
        interpolation="bilinear",
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
    """The row of ``DATA.FEATURE``; None for ``timm:<name>``, which timm knows.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    name = ALIASES.get(name, name)
    if name.startswith("timm:"):
        if problem := _timm_problem(name[len("timm:") :].split(".")[0]):
            raise ValueError(f"DATA.FEATURE {name!r}: {problem}")
        return None
    if name not in MODEL_ZOO:
        raise ValueError(unknown_backbone(name, MODEL_ZOO, [family.title for family in FAMILIES]))
    return MODEL_ZOO[name]


def _timm_problem(name: str) -> str:
    """Why timm's network ``name`` cannot be tuned here; "" if it can."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        return f"timm {timm.__version__} has no network of this name" + (f"; did you mean {near[0]}?" if near else "")
    module = _timm_module(name)
    if _timm_family(name) is None:
        modules = [module for family in FAMILIES for module in family.timm_modules]
        return f"it is from timm's {module}; supported are networks from {', '.join(modules)}"
    if module == "deit" and "distilled" in name:
        return "it has two heads, for class and distillation token: take the variant without distillation"
    return ""


def architecture(name: str, image_size: tuple[int, int]) -> nn.Module:
    """``DATA.FEATURE`` with random weights and no head; also works under ``torch.device("meta")``.

    Raises:
        ValueError: unknown name, or an image size that does not fit.
    """
    row = find_backbone(name)
    if row is not None:
        return create_vit(row, image_size)
    name = name[len("timm:") :]
    return timm.create_model(name, num_classes=0, **_size_arguments(name, image_size))


def _size_arguments(name: str, image_size: tuple[int, int]) -> dict:
    """The argument by which timm's network ``name`` is built for a size of images; none where it takes any size."""
    return {} if _timm_family(name).any_size else {"img_size": image_size}


def _timm_module(name: str) -> str:
    """The one of timm's modules that builds a network."""
    return timm.models.model_entrypoint(name.split(".")[0]).__module__.rsplit(".", 1)[1]


def _timm_family(name: str) -> Family | None:
    """The family of timm's network ``name``; None where methods do not work on it."""
    module = _timm_module(name)
    return next((family for family in FAMILIES if module in family.timm_modules), None)


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
    for file in row.files:
        if (path := in_repository(Path(root) / file)).is_file():
            return path
    where = Path(root).absolute() / row.files[0]
    get = f"put {row.url} at {where}" if row.url.startswith("http") else f"{where} is not there; {row.url}"
    raise FileNotFoundError(f"the weights of {name} are missing: {get} (see pretrained/README.md)")


def in_repository(path: Path) -> Path:
    """A relative path as it is if something is there, else taken from where ViTune's own ``pretrained`` is."""
    return path if path.is_absolute() or path.exists() else shipped("pretrained").parent / path


def build_backbone(
    name: str, root: Path, image_size: tuple[int, int], weight_path: str = "", resize: str = "auto"
) -> VisionTransformer:
    """timm ViT ``name`` with its pre-trained weights, no head, eval mode.

    Args:
        image_size: height and width; position embeddings are resized where they were made for another size.
        weight_path: a file to read instead of the one in ``root``; it must have the same format.
        resize: how position embeddings are resized: "bilinear" (VPT), "bicubic" (timm) or "auto" (the row's choice).

    Raises:
        FileNotFoundError: the weights are not in ``root``; the message says where to get them.
        ValueError: the name is unknown, or the file's keys do not fit the architecture.
    """
    row = find_backbone(name)
    path = find_weights(name, root, weight_path)
    if row is None:
        return _timm_vit(name[len("timm:") :], image_size, path).eval()
    vit = create_vit(row, image_size)
    load_weights(vit, path, row.convert, row.resize if resize == "auto" else resize)
    return vit.eval()


def create_vit(row: Backbone, image_size: tuple[int, int]) -> VisionTransformer:
    """A row's architecture with random weights, no head. Also works under ``torch.device("meta")``.

    Raises:
        ValueError: the image size is not a multiple of the patch size.
    """
    if isinstance(row.arch, str):
        vit = timm.create_model(row.arch, num_classes=0, img_size=image_size, global_pool=row.pool)
    else:
        vit = VisionTransformer(**{**row.arch, "img_size": image_size}, num_classes=0, global_pool=row.pool)
    check_size(image_size, vit.patch_embed.patch_size)
    set_dropout(vit, row.dropout, row.drop_path)
    return vit


def patch_size(row: Backbone) -> int:
    """Side of a row's square patches, in pixels."""
    return row.arch["patch_size"] if isinstance(row.arch, dict) else int(re.search(r"patch(\d+)", row.arch).group(1))


def set_dropout(vit: VisionTransformer, dropout: float, drop_path: float) -> None:
    """VPT's places: dropout after the position embedding, after GELU and after fc2; drop-path rising with depth."""
    vit.pos_drop.p = dropout
    if drop_path:
        set_drop_path(vit, drop_path)
    for block in vit.blocks:
        block.mlp.drop1.p = block.mlp.drop2.p = dropout


def load_weights(vit: VisionTransformer, path: Path, converter: Callable, resize: str = "bilinear") -> None:
    """Load a published file into ``vit``, every tensor of it and every parameter of the ViT.

    Raises:
        ValueError: the file cannot be read, or its keys or shapes do not fit: how many of which kind, and which.
    """
    path = Path(path)
    with reading(path, repr(converter.__name__)):
        state = converter(path)
        own, saved = vit.pos_embed, state.get("pos_embed")
        if saved is not None and saved.shape[::2] == own.shape[::2] and saved.shape[1] != own.shape[1]:
            prefix = own.shape[1] - vit.patch_embed.num_patches
            state["pos_embed"] = resize_pos_embed(saved, vit.patch_embed.grid_size, prefix, resize)
    require_fit(vit, state, path, type(vit).__name__)
    vit.load_state_dict(state)


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], prefix: int, how: str) -> Tensor:
    """Position embeddings (1, prefix + g * g, D) for another patch grid: (1, prefix + rows * cols, D).

    "bilinear" aligns the corners, as VPT's scipy.ndimage.zoom does; "bicubic" is timm's, with antialiasing. The first
    ``prefix`` rows are copied.

    Raises:
        ValueError: the embeddings do not belong to a square grid.
    """
    old = round((pos_embed.shape[1] - prefix) ** 0.5)
    if old * old != pos_embed.shape[1] - prefix:
        raise ValueError(f"{pos_embed.shape[1]} position embeddings are not a square grid after {prefix} prefix tokens")
    if how == "bicubic":
        return resample_abs_pos_embed(pos_embed, grid, (old, old), num_prefix_tokens=prefix)
    square = pos_embed[0, prefix:].unflatten(0, (old, old)).numpy()  # (g, g, D)
    zoomed = scipy.ndimage.zoom(square, (grid[0] / old, grid[1] / old, 1), order=1)
    return torch.cat((pos_embed[:, :prefix], torch.from_numpy(zoomed).flatten(0, 1)[None]), dim=1)


def _timm_vit(name: str, image_size: tuple[int, int], path: Path | None) -> nn.Module:
    size = _size_arguments(name, image_size)
    vit = timm.create_model(name, pretrained=False, num_classes=0, **size)
    family_of(vit)  # which it must have
    if isinstance(getattr(vit, "blocks", None), nn.Identity):
        raise ValueError(f"timm's {name!r} has no blocks")
    if size:
        check_size(image_size, vit.patch_embed.patch_size)
    if path is None:
        _fetch_timm_weights(vit, name)
    else:
        _load_timm_file(vit, name, path)
    return vit


def _fetch_timm_weights(vit: nn.Module, name: str) -> None:
    """What timm publishes, from its cache or the network.

    Raises:
        FileNotFoundError: timm cannot get it.
        ValueError: it does not hold all of the network.
    """
    missing = []
    hook = vit.register_load_state_dict_post_hook(lambda _, keys: missing.extend(keys.missing_keys))
    try:
        timm.models.load_pretrained(vit, num_classes=0, filter_fn=_timm_filter(name))
    except UNREADABLE as error:
        raise FileNotFoundError(
            f"timm could not get the weights of {name!r} ({type(error).__name__}). Fetch them once where there is a "
            "network (they stay in the Hugging Face cache), or set MODEL.WEIGHT_PATH to a local file"
        ) from error
    finally:
        hook.remove()
    if missing := sorted(set(missing) - _never_saved(name)):
        raise ValueError(
            f"the weights that timm has of {name!r} lack {len(missing)} tensors: {', '.join(missing[:10])}"
        )


def _load_timm_file(vit: nn.Module, name: str, path: Path) -> None:
    """A file in timm's names, or in others that timm knows, head or not; wrappers of training code come off.

    Raises:
        ValueError: the file cannot be read, or does not hold all of the network and nothing else.
    """
    with reading(path, f"timm's {name!r}"):
        content = read_content(path)
        if "Transformer/encoder_norm/scale" in content:
            content = convert.google(path)
        state, around = unwrapped(content)
        state = _in_timms_names(vit, name, state)
    classifier = vit.pretrained_cfg.get("classifier") or "head"
    spare = [f"{part}." for part in ((classifier,) if isinstance(classifier, str) else classifier)]
    if getattr(vit, "attn_pool", None) is None and "siglip" in name:
        spare.append("attn_pool.")  # published with those whose pooling is another
    state = {key: tensor for key, tensor in state.items() if not key.startswith(tuple(spare))}
    for key in _never_saved(name) - state.keys():
        state[key] = vit.state_dict()[key]
    require_fit(vit, state, path, f"timm's {name!r}")
    vit.load_state_dict(state)
    if around:
        logger.info("weights: %s, unwrapped from %s", path, ", ".join(around))


def _never_saved(name: str) -> set[str]:
    """What no weights of this kind have: ConvNeXt's final norm after masked pre-training, which starts at 1 and 0."""
    return {"head.norm.weight", "head.norm.bias"} if name.endswith(".fcmae") else set()


def _in_timms_names(vit: nn.Module, name: str, state: StateDict) -> StateDict:
    """``state`` as timm would load it: other projects' names translated, position embeddings of this image size.

    Unchanged where timm cannot do that: ``require_fit`` reports what is wrong.
    """
    patches = vit.get_submodule("patch_embed.proj").weight.shape if hasattr(vit, "patch_embed") else None
    for key, tensor in state.items():
        is_patches = key.endswith(("patch_embed.proj.weight", "visual.conv1.weight")) and tensor.ndim == 4
        if is_patches and patches and tensor.shape != patches:  # timm would take those of other patches, resampled
            return state
        if "pos" in key and "embed" in key and tensor.ndim > 1 and tensor.shape[-1] > MOST_CHANNELS:
            return state
    try:
        return _timm_filter(name)(dict(state), vit)
    except UNREADABLE:
        return state


def _timm_filter(name: str) -> Callable[[StateDict, nn.Module], StateDict]:
    """timm's own translation of published files, with the arguments that it has for some ViTs."""
    family = sys.modules[timm.model_entrypoint(name.split(".")[0]).__module__]
    if "flexi" in name:
        return partial(family.checkpoint_filter_fn, interpolation="bilinear", antialias=False)
    if "radio" in name:
        corners = any(part in name for part in family._RADIO_ALIGN_CORNERS)
        return partial(family.checkpoint_filter_fn, interpolation="bilinear", antialias=False, align_corners=corners)
    return family.checkpoint_filter_fn


def timm_arguments(name: str, vit: nn.Module, image_size: tuple[int, int], depth: int) -> tuple[str, dict]:
    """What makes ``timm.create_model`` build backbone ``name``: its architecture's name and arguments, JSON types only.

    Args:
        vit: the backbone as it was built.
        depth: how many blocks it shall have; of no meaning for Swin and ConvNeXt.
    """
    row, arguments = find_backbone(name), family_of(vit).arguments(vit, image_size, depth)
    if row is None:
        return name[len("timm:") :].split(".")[0], arguments
    if isinstance(row.arch, dict):  # VisionTransformer with other sizes, all of them given
        return "vit_base_patch16_224", {**row.arch, **arguments}
    return row.arch, arguments


def norm_of_all(name: str) -> bool:
    """Whether a backbone's final norm, which follows an average here, was pre-trained on every token."""
    row = find_backbone(name)
    return row is not None and row.convert is convert.mae


def licence(name: str) -> str:
    """Of a backbone's weights, as the Hugging Face Hub calls it; "" where none is stated."""
    row = find_backbone(name)
    return row.licence if row else timm.get_pretrained_cfg(name[len("timm:") :]).license or ""


def input_config(name: str) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], str]:
    """(Mean, standard deviation) per RGB channel in [0, 1] of the images the backbone was pre-trained on, and how those
    were resized: "bilinear" or "bicubic"."""
    row = find_backbone(name)
    if row is not None:
        return row.mean_std, row.interpolation
    pretrained = timm.get_pretrained_cfg(name[len("timm:") :])
    interpolation = pretrained.interpolation if pretrained.interpolation == "bilinear" else "bicubic"
    return (tuple(pretrained.mean), tuple(pretrained.std)), interpolation
