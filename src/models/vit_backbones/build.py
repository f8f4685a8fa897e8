"""From ``DATA.FEATURE`` to a timm network with its pre-trained weights."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import scipy.ndimage
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from ..drop_path import set_drop_path
from ..families import family_of
from . import from_timm, timm_weights
from .fit import misfits, require_fit
from .hugging_face.place import is_checkpoint
from .tensors import StateDict, reading
from .zoo import Backbone, find_backbone, find_weights


def architecture(name: str, image_size: tuple[int, int]) -> nn.Module:
    """``DATA.FEATURE`` with random weights and no head; also works under ``torch.device("meta")``.

    Raises:
        ValueError: unknown name, or an image size that does not fit.
    """
    row = find_backbone(name)
    if row is not None:
        return create_vit(row, image_size)
    return from_timm.create(name[len("timm:") :], image_size)


@cache
def native_patch(name: str, image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the patches of ``DATA.FEATURE``, of images that keep their aspect ratio.

    Raises:
        ValueError: it does not take such images.
    """
    with torch.device("meta"):
        vit = architecture(name, image_size)
    return family_of(vit).native_patch(vit)


def build_backbone(
    name: str, root: Path, image_size: tuple[int, int], weight_path: str = "", resize: str = "auto"
) -> nn.Module:
    """timm network ``name`` with its pre-trained weights, no head, eval mode.

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
        return timm_weights.pretrained_vit(name[len("timm:") :], image_size, path).eval()
    how = row.resize if resize == "auto" else resize
    claimed = is_checkpoint(name)  # no memory is taken for sizes that a config.json claims and the tensors do not have
    with torch.device("meta" if claimed else "cpu"):
        vit = create_vit(row, image_size)
    state = read_fitting(vit, path, row.convert, how, row.grid)
    vit = create_vit(row, image_size) if claimed else vit
    vit.load_state_dict(state)
    return vit.eval()


def create_vit(row: Backbone, image_size: tuple[int, int]) -> nn.Module:
    """A row's architecture with random weights, no head. Also works under ``torch.device("meta")``.

    Raises:
        ValueError: the image size is not a multiple of the patch size.
    """
    arguments = {key: value for key, value in row.arguments.items() if key != "img_size"}
    vit = from_timm.create(row.arch, image_size, **arguments, global_pool=row.pool)
    if row.epsilon:
        for norm in vit.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.eps = row.epsilon
    if row.dropout or row.drop_path:
        set_dropout(vit, row.dropout, row.drop_path)
    return vit


def set_dropout(vit: nn.Module, dropout: float, drop_path: float) -> None:
    """VPT's places: dropout after the position embedding, after GELU and after fc2; drop-path rising with depth."""
    if drop_path:
        set_drop_path(vit, drop_path)
    if dropout:
        vit.pos_drop.p = dropout
        for block in vit.blocks:
            block.mlp.drop1.p = block.mlp.drop2.p = dropout


def load_weights(vit: nn.Module, path: Path, converter: Callable, resize: str = "bilinear") -> None:
    """Load a published file into ``vit``; raises as ``read_fitting``."""
    vit.load_state_dict(read_fitting(vit, path, converter, resize))


def read_fitting(
    vit: nn.Module, path: Path, converter: Callable, resize: str, grid: tuple[int, int] | None = None
) -> StateDict:
    """What a published file holds for ``vit``: every tensor of the file and every parameter of the network.

    Args:
        vit: also one on the device "meta".
        grid: rows and columns of the file's position embeddings, where something says so; else they are square.

    Raises:
        ValueError: the file cannot be read, or its keys or shapes do not fit: how many of which kind, and which.
    """
    path = Path(path)
    with reading(path, repr(converter.__name__)):
        state = converter(path)
    if grid:
        _require_grid(vit, state, grid, path)
    with reading(path, repr(converter.__name__)):
        state = _of_this_size(vit, state, resize, grid)
    require_fit(vit, state, path, type(vit).__name__)
    return state


def _require_grid(vit: nn.Module, state: StateDict, grid: tuple[int, int], path: Path) -> None:
    """Raises ValueError unless a file has position embeddings for this grid, or none; first what else does not fit."""
    own, name = vit.state_dict(), "pos_embed"
    if name not in own or name not in state or state[name].shape[::2] != own[name].shape[::2]:
        return
    patches = state[name].shape[1] - (own[name].shape[1] - vit.patch_embed.num_patches)
    if patches == grid[0] * grid[1]:
        return
    del own[name]
    others = {other: tensor for other, tensor in state.items() if other != name}
    if wrong := misfits(own, others):
        raise ValueError(f"{path} does not fit {type(vit).__name__}: {wrong}")
    raise ValueError(
        f"{path} has position embeddings of {patches} patches, and config.json beside it says {grid[0]}x{grid[1]} "
        "(image_size / patch_size): one of them is wrong"
    )


def _of_this_size(vit: nn.Module, state: StateDict, resize: str, grid: tuple[int, int] | None) -> StateDict:
    """``state`` with what depends on the size of images as ``vit`` has it: positions, and Swin's within a window."""
    own, saved = getattr(vit, "pos_embed", None), state.get("pos_embed")
    if own is not None and saved is not None and saved.shape[::2] == own.shape[::2]:
        new = vit.patch_embed.grid_size
        if saved.shape[1] != own.shape[1] or grid not in (None, new):
            prefix = own.shape[1] - vit.patch_embed.num_patches
            state["pos_embed"] = resize_pos_embed(saved, new, prefix, resize, grid)
    for name, attention in vit.named_modules():
        if isinstance(attention, WindowAttention) and (table := f"{name}.relative_position_bias_table") in state:
            shape = attention.relative_position_bias_table.shape
            with warnings.catch_warnings(action="ignore"):  # of slower memory access
                state[table] = resize_rel_pos_bias_table(state[table], attention.window_size, shape)
    return state


def resize_pos_embed(
    pos_embed: Tensor, grid: tuple[int, int], prefix: int, how: str, old: tuple[int, int] | None = None
) -> Tensor:
    """Position embeddings (1, prefix + g * g, D) for another patch grid: (1, prefix + rows * cols, D).

    "bilinear" aligns the corners, as VPT's scipy.ndimage.zoom does; "bicubic" is timm's, with antialiasing. The first
    ``prefix`` rows are copied.

    Args:
        old: rows and columns of their own grid, if it is not square.

    Raises:
        ValueError: the embeddings do not belong to that grid.
    """
    patches = pos_embed.shape[1] - prefix
    old = old or (round(patches**0.5),) * 2
    if old[0] * old[1] != patches:
        shape = "a square grid" if old[0] == old[1] else f"a grid of {old[0]}x{old[1]}"
        raise ValueError(f"{pos_embed.shape[1]} position embeddings are not {shape} after {prefix} prefix tokens")
    if how == "bicubic":
        return resample_abs_pos_embed(pos_embed, grid, old, num_prefix_tokens=prefix)
    square = pos_embed[0, prefix:].unflatten(0, old).numpy()  # (g, g, D)
    zoomed = scipy.ndimage.zoom(square, (grid[0] / old[0], grid[1] / old[1], 1), order=1)
    return torch.cat((pos_embed[:, :prefix], torch.from_numpy(zoomed).flatten(0, 1)[None]), dim=1)


def timm_arguments(name: str, vit: nn.Module, image_size: tuple[int, int], depth: int) -> tuple[str, dict]:
    """What makes ``timm.create_model`` build backbone ``name``: its architecture's name and arguments, JSON types only.

    Args:
        vit: the backbone as it was built.
        depth: how many blocks it shall have; of no meaning for Swin and ConvNeXt.
    """
    row, arguments = find_backbone(name), family_of(vit).arguments(vit, image_size, depth)
    if not from_timm.takes_size(vit):
        arguments.pop("img_size", None)
    if row is None:
        return name[len("timm:") :].split(".")[0], arguments
    return row.arch, {**row.arguments, **arguments}
