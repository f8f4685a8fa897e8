"""One SpectralFilter, forward and backward: two matrix products against two FFTs, over the number of tokens."""

import argparse
import math
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from ...models.methods.freqfit import MATRIX_LIMIT, Fourier, SpectralFilter
from ...utils.plots import line_chart
from . import common
from .common import Report, Work

GRIDS = [(side, side) for side in (7, 8, 14, 16, 24, 32, 37)]
SEQUENCES = [(196,), (247,)]  # 14x14 patches; with 50 prompts and the class token, an odd number
PRECISIONS = ("fp32", "bf16")
FORMS = ("matrices", "FFT")


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    shapes = [shape for shape in GRIDS + SEQUENCES if math.prod(shape) <= args.largest]
    makers = {}
    wrong = {}
    cases = {}
    for shape in shapes:
        for form in FORMS:
            fourier = Forced(shape, form).to(device)
            for precision in PRECISIONS:
                name = f"{_shape_text(shape)}, {precision}, {form}"
                cases[shape, precision, form] = name
                makers[name] = partial(_make, fourier, precision, args, device)
                wrong[name] = errors(fourier, precision, args.dim, device)
    limit = MATRIX_LIMIT.get(device.type, 0)
    timings = common.take_turns(makers, args.rounds, device)
    rows = [
        {
            "shape": list(shape),
            "tokens": math.prod(shape),
            "precision": precision,
            "fft_over_matrices": common.times_as_fast(
                timings, cases[shape, precision, "matrices"], cases[shape, precision, "FFT"]
            ),
            **{form: timings[cases[shape, precision, form]].as_dict() for form in FORMS},
            "errors": {form: wrong[cases[shape, precision, form]] for form in FORMS},
        }
        for shape in shapes
        for precision in PRECISIONS
    ]
    crossovers = {precision: crossover(rows, precision) for precision in PRECISIONS}
    return Report(
        _text(rows, crossovers, limit, common.conditions(args, device)),
        {"dim": args.dim, "batch": args.batch, "matrix_limit": limit, "rows": rows, "crossover": crossovers},
        lambda path: line_chart(
            {f"{precision}, {form}": _line(rows, precision, form) for precision in PRECISIONS for form in FORMS},
            f"SpectralFilter over square grids, forward and backward, {args.dim} channels, batches of {args.batch}",
            "tokens",
            "seconds",
            path,
        ),
    )


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


class Forced(Fourier):
    """Matrices or FFTs, regardless of the number of tokens."""

    def __init__(self, shape: tuple[int, ...], form: str):
        with patch.dict(MATRIX_LIMIT, cpu=math.prod(shape)):  # otherwise long sequences would have no matrices
            super().__init__(0, shape)
        self.form = form

    def by_matrix(self, device: torch.device) -> bool:
        return self.form == "matrices"


def _make(fourier: Forced, precision: str, args: argparse.Namespace, device: torch.device) -> Work:
    tap = SpectralFilter(fourier, args.dim).to(device)
    tokens = torch.randn(args.batch, fourier.size, args.dim, device=device, requires_grad=True)
    upstream = torch.randn_like(tokens)
    return lambda: _both_ways(tap, precision, tokens, upstream)


def _both_ways(tap: SpectralFilter, precision: str, tokens: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """The output, and the gradients of the tokens and of every parameter.

    Tokens are float32 with bf16 too, as they are after the residual additions of the block before.
    """
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=precision == "bf16"):
        out = tap(tokens)
    named = {"tokens": tokens, **dict(tap.named_parameters())}
    gradients = torch.autograd.grad(out, named.values(), upstream)
    return {"output": out} | {f"gradient of {name}": gradient for name, gradient in zip(named, gradients, strict=True)}


def errors(fourier: Forced, precision: str, dim: int, device: torch.device) -> dict[str, dict]:
    """The largest difference from float64 FFTs of the output and every gradient, absolute and relative."""
    torch.manual_seed(0)
    tap = SpectralFilter(fourier, dim)
    tokens, upstream = torch.randn(2, 2, fourier.size, dim)
    exact = {name: value.detach().double().requires_grad_() for name, value in tap.named_parameters()}
    exact = {"tokens": tokens.double().requires_grad_()} | exact
    right = oracle(fourier.shape, **exact)
    gradients = torch.autograd.grad(right, exact.values(), upstream.double())
    expected = {"output": right.detach() - tokens}
    expected |= {f"gradient of {name}": gradient for name, gradient in zip(exact, gradients, strict=True)}
    actual = _both_ways(tap.to(device), precision, tokens.to(device).requires_grad_(), upstream.to(device))
    actual["output"] = actual["output"].detach() - tokens.to(device)
    return {name: _difference(actual[name], expected[name]) for name in expected}


def oracle(shape: tuple[int, ...], tokens: Tensor, filter: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """tokens + irfft(rfft(tokens) * filter) * scale + shift, in the input's precision."""
    axes = tuple(range(1, 1 + len(shape)))
    spectrum = torch.fft.rfftn(tokens.unflatten(1, shape), dim=axes, norm="ortho") * torch.view_as_complex(filter)
    filtered = torch.fft.irfftn(spectrum, s=shape, dim=axes, norm="ortho").flatten(1, -2)
    return tokens + filtered * scale + shift


def _difference(got: Tensor, want: Tensor) -> dict[str, float]:
    largest = (got.double().cpu() - want).abs().max().item()
    return {"absolute": largest, "relative": largest / want.abs().max().item()}


def crossover(rows: list[dict], precision: str) -> float | None:
    """The number of tokens of a square grid from which FFTs win, log-linearly interpolated between two sizes.

    None: at none of the sizes; the smallest size if they win there. Beyond it the matrices may win again: FFTs favour
    powers of two over primes.
    """
    grids = [row for row in rows if row["precision"] == precision and len(row["shape"]) == 2]
    first = next((i for i, row in enumerate(grids) if row["fft_over_matrices"] < 1), None)
    if not first:
        return None if first is None else float(grids[0]["tokens"])
    advantage = [math.log(row["fft_over_matrices"]) for row in grids[first - 1 : first + 1]]
    tokens = [math.log(row["tokens"]) for row in grids[first - 1 : first + 1]]
    return math.exp(np.interp(0, advantage[::-1], tokens[::-1]))


def _line(rows: list[dict], precision: str, form: str) -> tuple[list[float], list[float]]:
    grids = [row for row in rows if row["precision"] == precision and len(row["shape"]) == 2]
    return [row["tokens"] for row in grids], [row[form]["seconds"] for row in grids]


def _text(rows: list[dict], crossovers: dict[str, float | None], limit: int, conditions: str) -> str:
    header = ["tokens", "precision", "FFT time / matrix time", "matrices, ms", "FFT, ms"]
    header += [f"{what} error, {form}" for what in ("output", "gradient") for form in FORMS]
    lines = [
        [
            _shape_text(row["shape"]),
            row["precision"],
            f"{row['fft_over_matrices']:.2f}",
            *(f"{1000 * row[form]['seconds']:.3g}" for form in FORMS),
            *(f"{row['errors'][form]['output']['relative']:.1e}" for form in FORMS),
            *(f"{_largest_gradient_error(row['errors'][form]):.1e}" for form in FORMS),
        ]
        for row in rows
    ]
    winners = "; ".join(f"{precision}: {_winning(rows, precision, tokens)}" for precision, tokens in crossovers.items())
    return (
        f"{common.markdown(header, lines)}\n\nThe FFTs are faster for: {winners}; the model switches above "
        f"{limit}. bf16 is autocast. Errors: the largest difference from float64 FFTs over the largest value, "
        f"where the output is what is added to the tokens; the worst of the gradients. {conditions}.\n"
    )


def _winning(rows: list[dict], precision: str, tokens: float | None) -> str:
    won = [_shape_text(row["shape"]) for row in rows if row["precision"] == precision and row["fft_over_matrices"] < 1]
    return f"{', '.join(won)} (from about {tokens:.0f} tokens)" if tokens else ", ".join(won) or "nowhere"


def _largest_gradient_error(errors: dict[str, dict]) -> float:
    return max(error["relative"] for name, error in errors.items() if name != "output")
