"""FreqFit: a learned filter on the tokens' spectrum before every block (Ly & Nguyen, 2024, arXiv:2411.19297).

The filter after the last block is the paper's too. With class-token pooling it changes nothing the head sees, so it
gets no gradient; it stays, because the paper's parameter counts include it.
"""

import math
from contextlib import nullcontext

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ...configs.keys import Section, one_of
from ...utils.hardware import cpu_has_bfloat16
from ..families.stages import Grid
from ..method import Method
from ..sites import blocks, grids
from ..taps import OnMaps, normal, require_grid

# Tokens up to which two matrix products beat two FFTs. CPU: measured, forward and backward, time of the matrices / time
# of the FFTs: 0.4 at 7x7, 0.6 at 14x14, 0.8 at 16x16, 1.0 at 20x20, 1.3 at 24x24. CUDA: estimated from what either form
# reads and computes; `vitune bench freqfit` measures it.
MATRIX_LIMIT = {"cpu": 400, "cuda": 1024}


class Fourier(nn.Module):
    """rfftn and irfftn ("ortho") over the tokens after the first ``skip`` as fixed real matrices.

    ``shape`` is (rows, cols) for the 2-D transform over patches, (N,) for the 1-D one over a sequence; ``size`` all
    tokens, skip + prod(shape). ``analysis`` (2 K, size) gives the K frequencies' real parts, then their imaginary ones;
    ``synthesis`` (size, 2 K + 1) goes back, and adds its last input to every token that is not skipped. One module
    serves all blocks. Longer sequences than MATRIX_LIMIT have no matrices.

    For matrix units: rows are stored with a multiple of 8 numbers, and both matrices hold ``gain`` times too much, so
    that the mean, by far the largest frequency, is weighed with powers of two, which bfloat16 does not round.
    """

    def __init__(self, skip: int, shape: tuple[int, ...]):
        super().__init__()
        self.skip, self.shape = skip, shape
        self.size = skip + math.prod(shape)
        self.frequencies = math.prod(shape[:-1]) * (shape[-1] // 2 + 1)
        self.cpu_has_bfloat16 = cpu_has_bfloat16()
        if math.prod(shape) <= max(MATRIX_LIMIT.values()):
            root = math.prod(shape) ** 0.5
            self.gain = root / 2 ** round(math.log2(root))
            analysis, synthesis = (matrix * self.gain for matrix in fourier_matrices(shape))
            synthesis = torch.cat((synthesis, synthesis.new_ones(len(synthesis), 1)), dim=1)
            self.register_buffer("padded_analysis", _padded(F.pad(analysis, (skip, 0))), persistent=False)
            self.register_buffer("padded_synthesis", _padded(F.pad(synthesis, (0, 0, skip, 0))), persistent=False)

    def by_matrix(self, device: torch.device) -> bool:
        """Whether the matrices are the faster way."""
        return math.prod(self.shape) <= MATRIX_LIMIT.get(device.type, 0)

    def matrix_type(self, x: Tensor) -> torch.dtype:
        """The type in which to multiply matrices with the tokens ``x``."""
        kind = x.device.type
        if x.is_meta or not torch.is_autocast_enabled(kind):  # on meta there are only shapes to see
            return x.dtype
        return torch.get_autocast_dtype(kind) if kind != "cpu" or self.cpu_has_bfloat16 else torch.float32

    def analysis(self, dtype: torch.dtype) -> Tensor:
        return self.padded_analysis.to(dtype)[:, : self.size]

    def synthesis(self, dtype: torch.dtype) -> Tensor:
        return self.padded_synthesis.to(dtype)[:, : 2 * self.frequencies + 1]


def _padded(matrix: Tensor) -> Tensor:
    """In float32, rows filled up with zeros to a multiple of 8 numbers."""
    return F.pad(matrix.float(), (0, -matrix.shape[1] % 8))


class SpectralFilter(nn.Module):
    """x + irfft(rfft(x) * filter) * scale + shift, on every token after the skipped ones, which pass unchanged.

    tokens and result: (B, fourier.size, D). One filter per channel: ``filter`` is (*shape[:-1], shape[-1] // 2 + 1, D,
    2), the last axis real and imaginary part, or without that axis if ``real``, when it weighs both parts alike.

    Both transforms are linear in the tokens, so they are products with fixed real matrices, computed in the type of
    autocast where the machine multiplies matrices in it, else in float32. Measured at 14x14, 16x16, 5x4, 197 and 246
    tokens against the FFTs in float32, with bfloat16: what is added is off by at most 0.7 % of its largest value (0.5 %
    root mean square), gradients by 1.3 % (0.8 %); in float32 by 1e-6. The tokens themselves are not rounded.
    Long sequences go by FFT, in float32.
    """

    def __init__(self, fourier: Fourier, dim: int, real: bool = False):
        super().__init__()
        self.fourier, self.real = fourier, real
        spectrum = (*fourier.shape[:-1], fourier.shape[-1] // 2 + 1, dim)
        self.filter = normal(spectrum if real else (*spectrum, 2), 0.0, 0.02)
        self.scale = normal((dim,), 1.0, 0.02)
        self.shift = normal((dim,), 0.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        require_grid(x, self.fourier.size)
        dtype = self.fourier.matrix_type(x)
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            if self.fourier.by_matrix(x.device):
                return x + self.change_by_matrix(x.to(dtype))
            return x + self.change_by_fft(x.float()).to(x.dtype)

    def change_by_matrix(self, x: Tensor) -> Tensor:
        """What is added to the tokens: (B, N, D) -> (B, N, D), zero for those that are skipped."""
        real, imag = (self.fourier.analysis(x.dtype) @ x).chunk(2, dim=1)  # (B, K, D) each
        scale = self.scale / self.fourier.gain**2
        if self.real:
            weight = (self.filter * scale).flatten(0, -2).to(x.dtype)  # (K, D)
            parts = (real * weight, imag * weight)
        else:  # a + ib
            a, b = (self.filter * scale[:, None]).flatten(0, -3).to(x.dtype).unbind(-1)  # (K, D) each
            parts = (torch.addcmul(real * a, imag, b, value=-1), torch.addcmul(imag * a, real, b))
        shift = self.shift.to(x.dtype).expand(x.shape[0], 1, -1)
        return self.fourier.synthesis(x.dtype) @ torch.cat((*parts, shift), dim=1)

    def change_by_fft(self, x: Tensor) -> Tensor:
        """The same by FFT: float32 (B, N, D) -> (B, N, D).

        The last axis' first and (of an even number) last frequency are real in the spectrum of real tokens. What the
        filter makes of their imaginary parts is dropped here, as PyTorch's FFT on the CPU drops it: cuFFT need not.
        """
        skip, shape = self.fourier.skip, self.fourier.shape
        axes = tuple(range(1, 1 + len(shape)))
        weight = self.filter if self.real else torch.view_as_complex(self.filter)
        image = x[:, skip:].unflatten(1, shape)  # (B, rows, cols, D) or (B, N, D)
        spectrum = torch.fft.rfftn(image, dim=axes, norm="ortho") * weight
        if len(axes) > 1:
            spectrum = torch.fft.ifftn(spectrum, dim=axes[:-1], norm="ortho")
        last = torch.arange(spectrum.shape[-2], device=x.device)
        is_real = (last == 0) | (2 * last == shape[-1])
        spectrum = torch.complex(spectrum.real, spectrum.imag.masked_fill(is_real[:, None], 0.0))
        filtered = torch.fft.irfft(spectrum, n=shape[-1], dim=axes[-1], norm="ortho").flatten(1, -2)
        return F.pad(torch.addcmul(self.shift, filtered, self.scale), (0, 0, skip, 0))


def fourier_matrices(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """rfftn and irfftn ("ortho") over ``shape`` as real float64 matrices: (2 K, N) and (N, 2 K), N = prod(shape).

    Measured, not derived: what the transforms make of each unit vector, in float64.
    """
    size, axes = math.prod(shape), tuple(range(1, 1 + len(shape)))
    unit = torch.eye(size, dtype=torch.float64).view(size, *shape)
    forward = torch.fft.rfftn(unit, dim=axes, norm="ortho").flatten(1)  # (N, K) complex
    count = forward.shape[1]
    frequencies = torch.eye(count, dtype=torch.complex128).view(count, *shape[:-1], shape[-1] // 2 + 1)
    backward = [
        torch.fft.irfftn(frequencies * factor, s=shape, dim=axes, norm="ortho").flatten(1) for factor in (1.0, 1.0j)
    ]
    return torch.cat((forward.real, forward.imag), dim=1).T, torch.cat(backward).T


class FreqFit(Method):
    """FreqFit with a complex filter: (L + 1) (2 rows (cols // 2 + 1) D + 2 D) parameters in 2-D."""

    paper = "Ly & Nguyen, 2024, arXiv:2411.19297"
    learns = "(`FREQFIT freqfit`) a complex filter on the tokens' spectrum before every block"
    starts_pretrained = False
    for_any_backbone = True
    one_grid = "its filter has a weight for every frequency of one grid of patches"

    real = False

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # "2d": over the patch grid, prompts pass unchanged. "1d": over the sequence of prompts and patches. "auto": 1d
        # where there are prompts, else 2d. (The original code also uses 1d on MAE, MoCo v3 and CLIP.)
        cfg.TRANSFORM = one_of("auto", ["auto", "1d", "2d"])
        # "paper": filter ~ 0.02 N(0, 1), scale ~ N(1, 0.02), shift ~ N(0, 0.02), so training does not start at the
        # pre-trained model. "identity": filter and shift start at zero, so it does.
        cfg.INIT = one_of("paper", ["paper", "identity"])
        return cfg

    def attach(self, cfg, vit, tokens):
        sites, places = list(blocks(vit)), grids(vit, tokens)
        flat = cfg.TRANSFORM == "1d" or (cfg.TRANSFORM == "auto" and tokens is not None and any(tokens.prompts))
        fouriers: dict[tuple, Fourier] = {}  # blocks with as many tokens share their matrices
        for i, grid in enumerate(places):
            key = (grid.skip, grid.rows, grid.cols)
            if key not in fouriers:
                fouriers[key] = fourier(grid, tokens.prefix if tokens else 0, flat)
            tap = SpectralFilter(fouriers[key], grid.dim, self.real)
            if cfg.INIT == "identity":
                nn.init.zeros_(tap.filter)
                nn.init.zeros_(tap.shift)
            if grid.channels:
                tap = OnMaps(tap, grid.channels)
            if i < len(sites):
                self.before(sites[i], tap)
            else:
                self.after(sites[-1], tap)

    def idle(self, vit):
        """The filter after the last block, where the class token is pooled; see above."""
        last = f"taps.{len(self.taps) - 1}."
        own = {name for name, _ in self.named_parameters() if name.startswith(last)}
        return own if vit.global_pool == "token" else set()


def fourier(grid: Grid, prefix: int, flat: bool) -> Fourier:
    """The transform of a sequence: in 1-D over patches and the prompts after ``prefix``, in 2-D over patches."""
    if flat:
        return Fourier(prefix, (grid.skip - prefix + grid.rows * grid.cols,))
    return Fourier(grid.skip, (grid.rows, grid.cols))


class FreqFitReal(FreqFit):
    """FreqFit*: one real weight per frequency, half the parameters: (L + 1) (rows (cols // 2 + 1) D + 2 D) in 2-D."""

    learns = "(`FREQFIT freqfit_real`) FreqFit*, a real filter"

    real = True
