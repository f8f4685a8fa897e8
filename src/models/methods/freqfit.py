"""FreqFit: a learned filter on the tokens' spectrum before every block (Ly & Nguyen, 2024, arXiv:2411.19297).

The filter after the last block is the paper's too. With class-token pooling it changes nothing the head sees, so it
gets no gradient; it stays, because the paper's parameter counts include it.
"""

import math

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..method import Method, Tokens, normal

# Tokens up to which two matrix products beat two FFTs. Measured on a 2-core CPU, forward and backward, time of the
# matrices / time of the FFTs: 0.5 at 8x8, 0.7 at 14x14, 1.0 at 16x16, 1.5 at 24x24.
MATRIX_LIMIT = 256


class SpectralFilter(nn.Module):
    """x + irfft(rfft(x) * filter) * scale + shift, on every token behind the first ``skip``, which pass unchanged.

    ``shape`` is (rows, cols) for the 2-D transform over patches, (N,) for the 1-D one over a sequence. tokens and
    result: (B, skip + prod(shape), D). One filter per channel: ``filter`` is (*shape[:-1], shape[-1] // 2 + 1, D, 2),
    the last axis real and imaginary part, or without that axis if ``real``, when it weighs both parts alike. Computed
    in float32, whatever comes in.

    Both transforms are linear in the tokens, so for ordinary sequences they are products with fixed real matrices:
    ``analysis`` (2 K, N) gives the K frequencies' real parts, then their imaginary ones, ``synthesis`` (N, 2 K) goes
    back.
    """

    def __init__(self, skip: int, shape: tuple[int, ...], dim: int, real: bool):
        super().__init__()
        self.skip, self.shape, self.real = skip, shape, real
        spectrum = (*shape[:-1], shape[-1] // 2 + 1, dim)
        self.filter = normal(spectrum if real else (*spectrum, 2), 0.0, 0.02)
        self.scale = normal((dim,), 1.0, 0.02)
        self.shift = normal((dim,), 0.0, 0.02)
        analysis, synthesis = fourier_matrices(shape) if math.prod(shape) <= MATRIX_LIMIT else (None, None)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        body = x[:, self.skip :]
        with torch.autocast(x.device.type, enabled=False):
            filtered = (
                self.filter_by_fft(body.float()) if self.analysis is None else self.filter_by_matrix(body.float())
            )
            change = torch.addcmul(self.shift, filtered, self.scale)
        return torch.cat((x[:, : self.skip], body + change.to(x.dtype)), dim=1)

    def filter_by_matrix(self, body: Tensor) -> Tensor:
        """irfft(rfft(body) * filter): (B, N, D) -> (B, N, D)."""
        real, imag = (self.analysis @ body).chunk(2, dim=1)  # (B, K, D) each
        if self.real:
            weight = self.filter.flatten(0, -2)  # (K, D)
            return self.synthesis @ torch.cat((real * weight, imag * weight), dim=1)
        a, b = self.filter.flatten(0, -3).unbind(-1)  # (K, D) each: the filter a + ib
        product = (torch.addcmul(real * a, imag, b, value=-1), torch.addcmul(imag * a, real, b))
        return self.synthesis @ torch.cat(product, dim=1)

    def filter_by_fft(self, body: Tensor) -> Tensor:
        """The same by FFT, for long sequences: (B, N, D) -> (B, N, D)."""
        axes = tuple(range(1, 1 + len(self.shape)))
        weight = self.filter if self.real else torch.view_as_complex(self.filter)
        image = body.unflatten(1, self.shape)  # (B, rows, cols, D) or (B, N, D)
        spectrum = torch.fft.rfftn(image, dim=axes, norm="ortho") * weight
        return torch.fft.irfftn(spectrum, s=self.shape, dim=axes, norm="ortho").flatten(1, -2)


def fourier_matrices(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """rfftn and irfftn ("ortho") over ``shape`` as real matrices: (2 K, N) and (N, 2 K), N = prod(shape).

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
    return torch.cat((forward.real, forward.imag), dim=1).T.float(), torch.cat(backward).T.float()


class FreqFit(Method):
    """FreqFit with a complex filter: (L + 1) (2 rows (cols // 2 + 1) D + 2 D) parameters in 2-D."""

    paper = "Ly & Nguyen, 2024, arXiv:2411.19297"
    learns = "(`FREQFIT freqfit`) a complex filter on the tokens' spectrum before every block"

    real = False

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # "2d": over the patch grid, prompts pass unchanged. "1d": over the sequence of prompts and patches. "auto": 1d
        # where there are prompts, else 2d. (The original code also uses 1d on MAE, MoCo v3 and CLIP.)
        cfg.TRANSFORM = "auto"
        # "paper": filter ~ 0.02 N(0, 1), scale ~ N(1, 0.02), shift ~ N(0, 0.02), so training does not start at the
        # pre-trained model. "identity": filter and shift start at zero, so it does.
        cfg.INIT = "paper"
        return cfg

    @staticmethod
    def problems(cfg):
        found = []
        if cfg.TRANSFORM not in ("auto", "1d", "2d"):
            found.append(f"TRANSFORM is {cfg.TRANSFORM!r}; known: 'auto', '1d', '2d'")
        if cfg.INIT not in ("paper", "identity"):
            found.append(f"INIT is {cfg.INIT!r}; known: 'paper', 'identity'")
        return found

    def attach(self, cfg, vit, tokens):
        depth = len(vit.blocks)
        flat = cfg.TRANSFORM == "1d" or (cfg.TRANSFORM == "auto" and any(tokens.prompts))
        for i in range(depth + 1):
            tap = self._filter(tokens, tokens.prompts[i], flat)
            if cfg.INIT == "identity":
                nn.init.zeros_(tap.filter)
                nn.init.zeros_(tap.shift)
            if i < depth:
                self.before(f"blocks.{i}", tap)
            else:
                self.after(f"blocks.{depth - 1}", tap)

    def _filter(self, tokens: Tokens, prompts: int, flat: bool) -> SpectralFilter:
        if flat:
            return SpectralFilter(tokens.prefix, (prompts + tokens.rows * tokens.cols,), tokens.dim, self.real)
        return SpectralFilter(tokens.prefix + prompts, (tokens.rows, tokens.cols), tokens.dim, self.real)


class FreqFitReal(FreqFit):
    """FreqFit*: one real weight per frequency, half the parameters: (L + 1) (rows (cols // 2 + 1) D + 2 D) in 2-D."""

    learns = "(`FREQFIT freqfit_real`) FreqFit*, a real filter"

    real = True
