"""Images per second of the evaluator, and of a plain loop over a timm model."""

from collections.abc import Iterator
from functools import partial

import torch

from .....engine.precision import set_backends
from ... import common
from ...evaluation import PRECISIONS, Batches, ours, plain_loop
from ..finding import Finding, Room, aimed

AIM = 9000.0  # images per second, bf16


def run(room: Room) -> Iterator[Finding]:
    args, device = room.options(), torch.device(room.device)
    cfg = common.config(args, [])
    set_backends(cfg, device)
    batches = Batches(cfg, 1 if room.tiny else 4, room.batch, device)
    for precision, forced in PRECISIONS.items():
        cfg = common.config(args, [], forced)
        makers = {"plain loop over timm": partial(plain_loop, cfg, batches), "ours": partial(ours, cfg, batches)}
        timings = common.take_turns(makers, args.rounds, device)
        rates = {name: room.batch * len(batches) / timing.seconds for name, timing in timings.items()}
        times = common.times_as_fast(timings, "ours", "plain loop over timm")
        text = f"{rates['ours']:,.4g} images/s, {times:.2f} times a plain loop over timm"
        values = {"images_per_second": rates["ours"], "times_plain": times}
        if precision == "bf16":
            yield aimed(f"ours, {precision}", f"{text} (aim {AIM:,.0f})", rates["ours"] >= AIM, **values)
        else:
            yield Finding(f"ours, {precision}", text, values=values)
