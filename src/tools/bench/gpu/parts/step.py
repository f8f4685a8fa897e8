"""A training step by precision, against timm + peft in a plain loop; how much of the machine's peak it reaches."""

from collections.abc import Iterator
from functools import partial

import torch

from .....engine.precision import set_backends
from ... import common
from ...step import CONTENDERS, DEFAULTS, DTYPES, PEFT, PEFT_FREQFIT, build, make, matrix_side, product, step_operations
from ..finding import Finding, Room, aimed

FREQFIT_AIM = 1.10  # times the time of LoRA alone
OURS = ("ours, LoRA + FreqFit, fp32", "ours, LoRA + FreqFit, bf16", "ours, LoRA, bf16")


def run(room: Room) -> Iterator[Finding]:
    device, args = torch.device(room.device), room.options()
    set_backends(common.config(args, DEFAULTS), device)
    peaks = {}
    for finding, rate in matrix_peaks(room):
        peaks[finding.what] = rate
        yield finding
    seconds = {}
    for name in OURS:
        contender = CONTENDERS[name]
        cfg = common.config(args, DEFAULTS, contender.forced)
        images, labels = common.image_batch(cfg, room.batch, device)
        reference = CONTENDERS[contender.reference]
        pair = {contender.reference: partial(make, reference, common.config(args, DEFAULTS), images, labels)}
        timings = common.take_turns(pair | {name: partial(make, contender, cfg, images, labels)}, args.rounds, device)
        work = step_operations(build(contender.kind, cfg).to(device), images[:1], labels[:1]) * room.batch
        for each, timing in timings.items():
            seconds[each] = timing.seconds
            if each == name or each not in (PEFT, PEFT_FREQFIT):
                yield _row(
                    each, timings, contender.reference, work, peaks[f"matrix product, {contender.precision}"], room
                )
            else:
                yield _plain(each, timing, room)
        if room.on_gpu:
            torch.cuda.empty_cache()
    ratio = seconds[OURS[1]] / seconds[OURS[2]]
    text = f"{ratio:.2f} times a step without it (aim {FREQFIT_AIM:.2f})"
    yield aimed("FreqFit's price, bf16, not compiled", text, ratio <= FREQFIT_AIM, ratio=ratio)


def matrix_peaks(room: Room) -> Iterator[tuple[Finding, float]]:
    """The operations per second of one large square product, by precision."""
    device = torch.device(room.device)
    side = 256 if room.tiny else matrix_side(device)
    products = {name: partial(product, dtype, device, side) for name, dtype in DTYPES.items()}
    for name, timing in common.take_turns(products, room.options().rounds, device).items():
        rate = 2 * side**3 / timing.seconds
        text = f"{rate / 1e12:,.4g} TFLOP/s, {side} x {side}"
        yield Finding(f"matrix product, {name}", text, values={"flop_per_second": rate}), rate


def _plain(name: str, timing: common.Timing, room: Room) -> Finding:
    return Finding(name, speed(timing, room), values=figures(timing, room))


def _row(name: str, timings: dict, reference: str, work: int, peak: float, room: Room) -> Finding:
    timing = timings[name]
    share, times = work / timing.seconds / peak, common.times_as_fast(timings, name, reference)
    text = f"{speed(timing, room)}, {share:.0%} of the matrix peak, {times:.2f} times {reference}"
    return Finding(name, text, values={**figures(timing, room), "of_matrix_peak": share, "times_peft": times})


def speed(timing: common.Timing, room: Room) -> str:
    memory = f", {timing.peak / 2**30:.2f} GiB" if (timing.peak or 0) > 0 else ""  # CUDA graphs have pools of their own
    return f"{1000 * timing.seconds:.4g} ms, {room.batch / timing.seconds:,.4g} images/s{memory}"


def figures(timing: common.Timing, room: Room) -> dict:
    return {**timing.as_dict(), "images_per_second": room.batch / timing.seconds, "peak_memory_bytes": timing.peak}
