"""A compiled step by MODEL.COMPILE_MODE, and the whole step in one CUDA graph."""

from collections.abc import Iterator
from functools import partial

import torch

from .....engine.held import hold
from .....engine.precision import set_backends
from .....models.vit_models import TunedViT
from ... import common
from ...step import CONTENDERS, DEFAULTS, OURS, PEFT_FREQFIT, build, make, step_operations
from ..finding import Finding, LeftOut, Room, aimed
from ..subjects import step_of
from .step import figures, matrix_peaks, speed

PEAK_AIM, PEFT_AIM, FREQFIT_AIM = 0.45, 8.0, 1.10
BF16 = ("SOLVER.AMP", "bf16")
MODES = ("reduce-overhead", "default")


def run(room: Room) -> Iterator[Finding]:
    if not room.on_gpu:
        raise LeftOut("on a CPU torch's compiler takes minutes: vitune bench step measures it there")
    args, device = room.options(), torch.device(room.device)
    set_backends(common.config(args, DEFAULTS), device)
    peak = dict((finding.what, rate) for finding, rate in matrix_peaks(room))["matrix product, bf16"]
    images, labels = common.image_batch(common.config(args, DEFAULTS), room.batch, device)
    plain = partial(make, CONTENDERS[PEFT_FREQFIT], common.config(args, DEFAULTS), images, labels)
    work = step_operations(build(OURS, common.config(args, DEFAULTS)).to(device), images[:1], labels[:1]) * room.batch
    for mode in MODES:
        if room.left() < 20:
            break
        pairs = (*BF16, "MODEL.COMPILE", "True", "MODEL.COMPILE_MODE", mode)
        names = (f"LoRA + FreqFit, bf16, {mode}", f"LoRA, bf16, {mode}")
        contenders = {PEFT_FREQFIT: plain}
        for name, alone in zip(names, ((), ("FREQFIT", "")), strict=True):
            cfg = common.config(args, DEFAULTS, (*pairs, *alone))
            contenders[name] = partial(make, CONTENDERS["ours, LoRA + FreqFit, bf16, compiled"], cfg, images, labels)
        timings = common.take_turns(contenders, args.rounds, device)
        timing = timings[names[0]]
        share, times = work / timing.seconds / peak, common.times_as_fast(timings, names[0], PEFT_FREQFIT)
        text = (
            f"{speed(timing, room)}, compiled in {timing.compile_seconds:.0f} s; {share:.0%} of the matrix peak (aim "
            f"{PEAK_AIM:.0%}), {times:.2f} times {PEFT_FREQFIT} (aim {PEFT_AIM:.0f})"
        )
        found = {**figures(timing, room), "of_matrix_peak": share, "times_peft": times}
        yield aimed(names[0], text, share >= PEAK_AIM and times >= PEFT_AIM, **found)
        yield Finding(names[1], speed(timings[names[1]], room), values=figures(timings[names[1]], room))
        price = common.times_as_fast(timings, names[1], names[0])
        text = f"{price:.2f} times a step without it (aim {FREQFIT_AIM:.2f})"
        yield aimed(f"FreqFit's price, bf16, {mode}", text, price <= FREQFIT_AIM, ratio=price)
        torch._dynamo.reset()
        torch.cuda.empty_cache()
    if room.left() > 10:
        timing = common.take_turns({"": partial(_in_one_graph, room, images, labels)}, args.rounds, device)[""]
        share = work / timing.seconds / peak
        text = (
            f"{speed(timing, room)}, {share:.0%} of the matrix peak; no mode of MODEL.COMPILE, but what one could reach"
        )
        yield Finding("the whole step, not compiled, in one CUDA graph", text, values=figures(timing, room))


def _in_one_graph(room: Room, images: torch.Tensor, labels: torch.Tensor) -> common.Work:
    """A replay of a step of LoRA with FreqFit, optimizer and all."""
    cfg = common.config(room.options(), DEFAULTS, BF16)
    model = build(OURS, cfg).to(images.device)
    assert isinstance(model, TunedViT)
    hold(model, cfg, images.device)
    step = step_of(cfg, model)
    for group in step.optimizer.param_groups:
        group["capturable"] = True
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(images, labels)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(images, labels)
    return graph.replay
