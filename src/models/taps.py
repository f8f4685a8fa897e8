"""Taps that several methods use, and how parameters start."""

import torch
from timm.layers import LayerNorm2d, RmsNorm2d, RmsNorm2dFp32, SimpleNorm2d, SimpleNorm2dFp32
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CHANNELS_FIRST = (
    *(nn.Conv2d, nn.GroupNorm, _BatchNorm),
    *(LayerNorm2d, RmsNorm2d, RmsNorm2dFp32, SimpleNorm2d, SimpleNorm2dFp32),
)


def channels_first(op: nn.Module) -> bool:
    """Whether what an operation returns has its channels before rows and columns, and not last.

    nn.BatchNorm1d normalises lists of tokens here, as in LeViT: (B * N, D).
    """
    return isinstance(op, CHANNELS_FIRST) and not isinstance(op, nn.BatchNorm1d)


class Reader(nn.Module):
    """A tap that passes its input on, and makes an ``answer`` of it that waits for the method's ``features``.

    The tokens are therefore those of the frozen ViT, the same in every epoch, and so is what it reads of them:
    prefix.py computes ``read`` once for every image. A subclass defines both.
    """

    reads_only = True

    def __init__(self):
        super().__init__()
        self.log: list[tuple[Reader, Tensor]] | None = None  # if set, what is read goes there and is not answered

    def forward(self, x: Tensor) -> Tensor:
        read = self.read(x)
        if self.log is None:
            self.answer(read)
        else:
            self.log.append((self, read))
        return x

    def read(self, x: Tensor) -> Tensor:
        """All that ``answer`` needs of the input: (B, ...)."""
        raise NotImplementedError

    def answer(self, read: Tensor) -> None:
        """Compute with this tap's own parameters, and keep the result."""
        raise NotImplementedError


class Keep(nn.Module):
    """Passes x on and keeps it for a tap further on in the same block, which takes it."""

    reads_only = True

    def __init__(self):
        super().__init__()
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = x
        return x

    def take(self) -> Tensor:
        x, self.kept = self.kept, None
        return x

    def __getstate__(self):
        return {**self.__dict__, "kept": None}  # copies and files of the model do not need it


class FromKept(nn.Module):
    """``tap`` of what ``keep`` kept; its own input is ignored."""

    def __init__(self, keep: Keep, tap: nn.Module):
        super().__init__()
        self.keep = (keep,)  # in a tuple: this tap does not own it
        self.tap = tap

    def forward(self, x: Tensor) -> Tensor:
        (keep,) = self.keep
        return self.tap(keep.take())


def require_grid(x: Tensor, *counts: int) -> None:
    """Raises ValueError unless there are as many tokens (B, N, D) as one of ``counts``: those of the grid that a tap is
    made for. Networks for images of any size would go on with others."""
    if x.shape[1] not in counts:
        raise ValueError(
            f"a method on this network is made for {counts[0]:,} tokens, and of these images there are {x.shape[1]:,}: "
            "build the network for their size (DATA.CROPSIZE, or timm.create_model(..., img_size=(height, width)))"
        )


class ScaleShift(nn.Module):
    """y * scale + shift, per channel; channels last, or first for the patch convolution's (B, D, rows, cols)."""

    def __init__(self, channels: int, channels_first: bool = False):
        super().__init__()
        shape = (channels, 1, 1) if channels_first else (channels,)
        self.scale = normal(shape, 1.0, 0.02)
        self.shift = normal(shape, 0.0, 0.02)

    def forward(self, y: Tensor) -> Tensor:
        return y * self.scale + self.shift


class OnMaps(nn.Module):
    """A tap of tokens (B, N, D) for maps: (B, rows, cols, D) -> the same, or with ``channels`` "first", (B, D, rows,
    cols)."""

    def __init__(self, tap: nn.Module, channels: str):
        super().__init__()
        self.tap, self.first = tap, channels == "first"

    def forward(self, x: Tensor) -> Tensor:
        maps = x.movedim(1, -1) if self.first else x
        y = self.tap(maps.flatten(1, 2)).unflatten(1, maps.shape[1:3])
        return y.movedim(-1, 1) if self.first else y


def scale_shift_of(op: nn.Module, dim: int) -> ScaleShift:
    """A ScaleShift for the output of an operation; of ``dim`` channels where the operation does not know its own."""
    known = (getattr(op, name, None) for name in ("out_channels", "out_features", "num_features", "num_channels"))
    channels = next(filter(None, known), None) or getattr(op, "normalized_shape", (dim,))[0]
    return ScaleShift(channels, channels_first(op))


def uniform(shape: tuple[int, ...], bound: float) -> nn.Parameter:
    """A parameter drawn from U(-bound, bound)."""
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def normal(shape: tuple[int, ...], mean: float, std: float) -> nn.Parameter:
    """A parameter drawn from N(mean, std^2)."""
    return nn.Parameter(torch.empty(shape).normal_(mean, std))
