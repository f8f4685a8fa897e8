"""From ``DATA.FEATURE`` to a timm network with its pre-trained weights."""

from collections.abc import Callable
from pathlib import Path

import scipy.ndimage
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..drop_path import set_drop_path
from ..families import family_of
from . import from_timm
from .fit import require_fit
from .refusals import check_size
from .tensors import reading
from .zoo import Backbone, find_backbone, find_weights


def architecture(name: str, image_size: tuple[int, int]) -> nn.Module:
    """``DATA.FEATURE`` with random weights and no head; also works under ``torch.device("meta")``.

    Raises:
        ValueError: unknown name, or an image size that does not fit.
    """
    row = find_backbone(name)
    if row is not None:
        return create_vit(row, image_size)
    name = name[len("timm:") :]
    return timm.create_model(name, num_classes=0, **from_timm.size_arguments(name, image_size))


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
        return from_timm.pretrained_vit(name[len("timm:") :], image_size, path).eval()
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
