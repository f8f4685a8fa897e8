"""Measuring FreqFit's filters: impulse responses, gains per frequency, and the spectra of images' tokens.

A filter adds a circular convolution and a shift to the tokens, channel by channel. Its kernel is its impulse response;
the kernel's Fourier transform T, including scale, is its effect per frequency: the token map's spectrum is multiplied
by 1 + T. This is the effect of the learned numbers: for frequencies that a real map has twice, only a part of them
matters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...models.method import wires
from ...models.methods.freqfit import SpectralFilter
from ...models.taps import OnMaps
from ...models.vit_models import TunedViT


@dataclass(frozen=True)
class Response:
    """One filter's response over the patch grid (rows, cols) or sequence (N,), ``shape``; zero is in the middle.

    Attributes:
        site: "before blocks.3".
        kernel: (*shape, D), what an impulse in the middle of a channel adds to that channel.
        transfer: (*shape, D), complex: T at each frequency.
    """

    site: str
    kernel: Tensor
    transfer: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.kernel.shape[:-1])

    @property
    def added(self) -> Tensor:
        """|T|, mean over channels: (*shape,)."""
        return self.transfer.abs().mean(-1)

    @property
    def gain(self) -> Tensor:
        """|1 + T|, mean over channels: the factor per frequency."""
        return (1 + self.transfer).abs().mean(-1)

    @property
    def field(self) -> Tensor:
        """Root mean square of the kernel over channels: the weight of each offset."""
        return self.kernel.square().mean(-1).sqrt()

    @property
    def reach(self) -> Tensor:
        """The share of the kernel's energy within a distance (in patches, Euclidean) of 0, 1, 2, ...; the last is 1."""
        energy = self.kernel.square().mean(-1)
        distance = radius(self.shape)
        rings = torch.arange(int(distance.max()) + 2)
        inside = torch.stack([energy[distance <= ring].sum() for ring in rings])
        return inside / inside[-1].clamp_min(torch.finfo(energy.dtype).tiny)


def filters_of(model: TunedViT) -> list[tuple[str, SpectralFilter]]:
    """All filters with their places, in execution order; none if the run has no FreqFit."""
    taps = [(f"{verb} {site}", tap) for _, site, verb, tap in wires(model.methods)]
    taps = [(where, tap.tap if isinstance(tap, OnMaps) else tap) for where, tap in taps]
    return [(where, tap) for where, tap in taps if isinstance(tap, SpectralFilter)]


@torch.no_grad()
def response(where: str, tap: SpectralFilter) -> Response:
    """Measure a filter in float32, with an impulse in all channels at once, since channels do not mix."""
    shape = tap.fourier.shape
    middle = tuple(length // 2 for length in shape)
    impulse = torch.zeros(1, *shape, tap.scale.numel(), device=tap.scale.device)
    impulse[(0, *middle)] = 1.0
    answers = [tap.change_by_fft(_with_prefix(tap, x))[0, tap.fourier.skip :] for x in (impulse, 0 * impulse)]
    kernel = (answers[0] - answers[1]).cpu().unflatten(0, shape)
    axes = tuple(range(len(shape)))
    transfer = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(kernel, dim=axes), dim=axes), dim=axes)
    return Response(where, kernel, transfer)


def _with_prefix(tap: SpectralFilter, image: Tensor) -> Tensor:
    """(1, *shape, D) -> (1, skip + prod(shape), D)"""
    return nn.functional.pad(image.flatten(1, -2), (0, 0, tap.fourier.skip, 0))


def frequencies(shape: tuple[int, ...]) -> Tensor:
    """The magnitude of every frequency, in cycles per patch: (*shape,)."""
    axes = [torch.fft.fftshift(torch.fft.fftfreq(length)) for length in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


def radius(shape: tuple[int, ...]) -> Tensor:
    """The distance of every offset from the middle, in patches: (*shape,)."""
    axes = [torch.arange(length) - length // 2 for length in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).double().square().sum(0).sqrt()


@dataclass(frozen=True)
class Spectrum:
    """Power of the token maps by frequency, mean over channels and images, before and after a filter: (*shape,)."""

    before: Tensor
    after: Tensor


@torch.inference_mode()
def spectra(model: TunedViT, batches: Iterator[Tensor]) -> list[Spectrum]:
    """The spectra around every filter, over batches of images (B, 3, H, W) on the model's device."""
    taps = filters_of(model)
    sums: list[list[Tensor]] = [[torch.zeros(tap.fourier.shape) for _ in range(2)] for _, tap in taps]
    count = 0
    with _watching([tap for _, tap in taps], lambda i, x, y: _add(sums[i], taps[i][1], x, y)):
        for images in batches:
            model(images)
            count += len(images)
    return [Spectrum(before / count, after / count) for before, after in sums]


@contextmanager
def _watching(taps: list[SpectralFilter], see: Callable[[int, Tensor, Tensor], None]) -> Iterator[None]:
    """Inside, ``see(i, x, y)`` is called whenever filter i maps x to y."""
    hooks = [tap.register_forward_hook(lambda module, args, y, i=i: see(i, args[0], y)) for i, tap in enumerate(taps)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _add(sums: list[Tensor], tap: SpectralFilter, x: Tensor, y: Tensor) -> None:
    for total, tokens in zip(sums, (x, y), strict=True):
        total += power(tokens[:, tap.fourier.skip :], tap.fourier.shape)


def power(tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, prod(shape), D) -> power of each frequency, mean over channels, summed over images, zero in the middle."""
    axes = tuple(range(1, 1 + len(shape)))
    spectrum = torch.fft.fftn(tokens.float().unflatten(1, shape), dim=axes, norm="ortho")
    return torch.fft.fftshift(spectrum.abs().square().mean(-1), dim=axes).sum(0).cpu()


def by_distance(values: Tensor) -> tuple[list[float], list[float]]:
    """Means of ``values`` (*shape,) over rings of frequencies: (frequencies in cycles per patch, means)."""
    distance = frequencies(tuple(values.shape)).flatten()
    rings = max(2, min(24, max(values.shape) // 2))  # up to half a cycle per patch
    where = (distance / 0.5 * rings).round().long()
    each = [where == ring for ring in where.unique().tolist()]
    return [distance[some].mean().item() for some in each], [values.flatten()[some].mean().item() for some in each]
