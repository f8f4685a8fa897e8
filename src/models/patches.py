"""Images of any aspect ratio in one tensor: a batch of patches, as NaFlexVit reads them (arXiv:2502.14786).

(B, N, W + 3): of each of N patches its W = height * width * 3 numbers, in this order of axes, then its row and its
column in the image's own grid, and 1. An image with fewer patches is filled up with zeros. Rows and columns are below
256, so that uint8 holds them as it holds pixels.
"""

import torch
from torch import Tensor

PLACE = 3  # numbers behind a patch: row, column, whether it is part of the image
LONGEST = 256  # patches in a row or column


def grid_of(size: tuple[int, int], patch: tuple[int, int], count: int) -> tuple[int, int]:
    """(rows, cols) of the largest image in proportion to ``size`` that ``count`` patches cover.

    As SigLIP 2's NaFlex chooses it: an image that does not fill the last patches is stretched to do so.
    """
    height, width = size[0] * patch[1], size[1] * patch[0]  # in proportion to patches
    most = range(1, min(count, LONGEST) + 1)
    fits = [(n * width, n, -(-width * n // height)) for n in most]  # n rows filled: its scale, rows, cols
    fits += [(n * height, -(-height * n // width), n) for n in most]
    _, rows, cols = max(fit for fit in fits if fit[1] * fit[2] <= count and max(fit[1:]) <= LONGEST)
    return rows, cols


def pack(image: Tensor, patch: tuple[int, int], count: int) -> Tensor:
    """(3, rows * patch height, cols * patch width) -> (N, W + 3) with N = ``count``, of the same type."""
    grid = [side // own for side, own in zip(image.shape[1:], patch, strict=True)]
    lines = image.permute(1, 2, 0).contiguous().view(grid[0], patch[0], grid[1], 3 * patch[1])  # faster in two copies
    packed = image.new_zeros(count, 3 * patch[0] * patch[1] + PLACE)
    inside = packed[: grid[0] * grid[1]].unflatten(0, grid)
    inside[..., :-PLACE].unflatten(-1, (patch[0], 3 * patch[1])).copy_(lines.transpose(1, 2))
    rows, cols = (torch.arange(n, dtype=image.dtype, device=image.device) for n in grid)
    inside[..., -3], inside[..., -2], inside[..., -1] = rows[:, None], cols, 1
    return packed


def unpack(batch: Tensor) -> dict[str, Tensor]:
    """A batch as timm's NaFlexVit takes it: patches (B, N, W), patch_coord (B, N, 2) and patch_valid (B, N)."""
    return {"patches": batch[..., :-PLACE], **places(batch[..., -PLACE:])}


def places(last: Tensor) -> dict[str, Tensor]:
    """patch_coord and patch_valid of the last three numbers of every patch."""
    return {"patch_coord": last[..., :2].long(), "patch_valid": last[..., 2] > 0}


def image_of(packed: Tensor, patch: tuple[int, int]) -> Tensor:
    """What ``pack`` got: (N, W + 3) -> (3, H, W)."""
    own = packed[packed[:, -1] > 0]
    grid = [int(own[:, i].max()) + 1 for i in (-3, -2)]
    return own[:, :-PLACE].unflatten(-1, (*patch, 3)).unflatten(0, grid).permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)
