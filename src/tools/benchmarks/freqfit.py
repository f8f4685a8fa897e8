"""One SpectralFilter, forward and backward: two matrix products against two FFTs, over the number of tokens.

    python -m src.tools.bench freqfit
    python -m src.tools.bench freqfit --dim 384 --batch 32 --rounds 10

Beside the times: how far the output and each gradient are from FFTs in float64, and from how many tokens the FFTs win.
"""

import argparse
import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...models.methods.freqfit import MATRIX_LIMIT, SpectralFilter, fourier_matrices
from ...utils.plots import line_chart
from . import common
from .common import Report, Work

GRIDS = [(side, side) for side in (7, 8, 14, 16, 24, 32, 37)]
SEQUENCES = [(196,), (247,)]  # the patches of 14x14, and with 50 prompts and the class token an odd number
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORMS = ("matrices", "FFT")


def add_options(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, batch=16, rounds=5)
    parser.add_argument("--dim", type=common.positive, default=768, help="channels (default: %(default)s)")
    parser.add_argument(
        "--largest", type=common.positive, default=2048, help="leave out more tokens than this (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    shapes = [shape for shape in GRIDS + SEQUENCES if math.prod(shape) <= args.largest]
    makers, errors, cases = {}, {}, {}
    for shape in shapes:
        for precision, dtype in DTYPES.items():
            for form in FORMS:
                name = f"{_said(shape)}, {precision}, {form}"
                cases[shape, precision, form] = name
                makers[name] = partial(_make, shape, dtype, form, args, device)
                errors[name] = _errors(shape, dtype, form, args.dim, device)
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
            "errors": {form: errors[cases[shape, precision, form]] for form in FORMS},
        }
        for shape in shapes
        for precision in DTYPES
    ]
    crossovers = {precision: crossover(rows, precision) for precision in DTYPES}
    return Report(
        _text(rows, crossovers, common.conditions(args, device)),
        {"dim": args.dim, "batch": args.batch, "matrix_limit": MATRIX_LIMIT, "rows": rows, "crossover": crossovers},
        lambda path: line_chart(
            {f"{precision}, {form}": _line(rows, precision, form) for precision in DTYPES for form in FORMS},
            f"SpectralFilter over square grids, forward and backward, {args.dim} channels, batches of {args.batch}",
            "tokens",
            "seconds",
            path,
        ),
    )


def _said(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def build(shape: tuple[int, ...], dim: int, form: str) -> SpectralFilter:
    """The filter as the model has it, in this form whatever its size."""
    torch.manual_seed(0)
    tap = SpectralFilter(0, shape, dim, real=False)
    tap.analysis, tap.synthesis = fourier_matrices(shape) if form == "matrices" else (None, None)
    return tap


def _make(
    shape: tuple[int, ...], dtype: torch.dtype, form: str, args: argparse.Namespace, device: torch.device
) -> Work:
    tap = build(shape, args.dim, form).to(device)
    tokens = torch.randn(args.batch, math.prod(shape), args.dim, device=device, dtype=dtype, requires_grad=True)
    upstream = torch.randn_like(tokens)
    return lambda: _both_ways(tap, tokens, upstream)


def _both_ways(tap: SpectralFilter, tokens: Tensor, upstream: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradient of the tokens and of every parameter; tokens in bfloat16 come under autocast."""
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.dtype == torch.bfloat16):
        out = tap(tokens)
    named = {"tokens": tokens, **dict(tap.named_parameters())}
    return out, dict(zip(named, torch.autograd.grad(out, named.values(), upstream), strict=True))


def _errors(shape: tuple[int, ...], dtype: torch.dtype, form: str, dim: int, device: torch.device) -> dict[str, dict]:
    """Of the output and every gradient: the largest difference from float64 FFTs, and that over the largest value."""
    tap = build(shape, dim, form)
    tokens, upstream = (torch.randn(2, math.prod(shape), dim).to(dtype) for _ in range(2))
    out, gradients = _both_ways(tap.to(device), tokens.to(device).requires_grad_(), upstream.to(device))
    exact = [value.detach().double().cpu().requires_grad_() for value in (tokens, tap.filter, tap.scale, tap.shift)]
    expected = oracle(*exact, shape)
    right = torch.autograd.grad(expected, exact, upstream.double())
    names = ("output", "gradient of tokens", "gradient of filter", "gradient of scale", "gradient of shift")
    found = (out, *(gradients[name] for name in ("tokens", "filter", "scale", "shift")))
    return {name: _difference(got, want) for name, got, want in zip(names, found, (expected, *right), strict=True)}


def oracle(tokens: Tensor, filter: Tensor, scale: Tensor, shift: Tensor, shape: tuple[int, ...]) -> Tensor:
    """tokens + irfft(rfft(tokens) * filter) * scale + shift, in the precision that comes in."""
    axes = tuple(range(1, 1 + len(shape)))
    spectrum = torch.fft.rfftn(tokens.unflatten(1, shape), dim=axes, norm="ortho") * torch.view_as_complex(filter)
    filtered = torch.fft.irfftn(spectrum, s=shape, dim=axes, norm="ortho").flatten(1, -2)
    return tokens + filtered * scale + shift


def _difference(got: Tensor, want: Tensor) -> dict[str, float]:
    largest = (got.detach().double().cpu() - want.detach()).abs().max().item()
    return {"absolute": largest, "relative": largest / want.detach().abs().max().item()}


def crossover(rows: list[dict], precision: str) -> float | None:
    """From how many tokens of a square grid the FFTs are faster, between two sizes by a straight line in logarithms.

    None: the matrices win at every size that was measured; 0: the FFTs do.
    """
    grids = [row for row in rows if row["precision"] == precision and len(row["shape"]) == 2]
    won = [row["fft_over_matrices"] > 1 for row in grids]
    if all(won):
        return None
    last = max((i for i, yes in enumerate(won) if yes), default=-1)
    if last == -1:
        return 0.0
    if last == len(grids) - 1:
        return None
    advantage = [math.log(row["fft_over_matrices"]) for row in grids[last : last + 2]]
    tokens = [math.log(row["tokens"]) for row in grids[last : last + 2]]
    return math.exp(np.interp(0, advantage[::-1], tokens[::-1]))


def _line(rows: list[dict], precision: str, form: str) -> tuple[list[float], list[float]]:
    grids = [row for row in rows if row["precision"] == precision and len(row["shape"]) == 2]
    return [row["tokens"] for row in grids], [row[form]["seconds"] for row in grids]


def _text(rows: list[dict], crossovers: dict[str, float | None], conditions: str) -> str:
    header = ["tokens", "precision", "FFT time / matrix time", "matrices, ms", "FFT, ms"]
    header += [f"{what} error, {form}" for what in ("output", "gradient") for form in FORMS]
    lines = [
        [
            _said(row["shape"]),
            row["precision"],
            f"{row['fft_over_matrices']:.2f}",
            *(f"{1000 * row[form]['seconds']:.3g}" for form in FORMS),
            *(f"{row['errors'][form]['output']['relative']:.1e}" for form in FORMS),
            *(f"{_largest_gradient_error(row['errors'][form]):.1e}" for form in FORMS),
        ]
        for row in rows
    ]
    said = "; ".join(f"{precision}: {_crossing(tokens)}" for precision, tokens in crossovers.items())
    return (
        f"{common.markdown(header, lines)}\n\nThe FFTs are faster on square grids: {said} (the model changes over "
        f"behind {MATRIX_LIMIT}). Errors: the largest difference from FFTs in float64 over the largest value; of the "
        f"gradients the worst. {conditions}.\n"
    )


def _crossing(tokens: float | None) -> str:
    return (
        "at none of these sizes" if tokens is None else f"from about {tokens:.0f} tokens" if tokens else "at all sizes"
    )


def _largest_gradient_error(errors: dict[str, dict]) -> float:
    return max(found["relative"] for name, found in errors.items() if name != "output")
