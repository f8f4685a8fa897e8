"""One batch for several models on one frozen backbone: what they compute alike is computed once.

That is the stages before the first that a model's methods touch: all but the head after linear probing, the early
blocks after ``partial``, the patch embedding after LoRA. Nothing is approximated: every stage is the network's own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...data.pixels import normalise
from ...engine.precision import autocast, set_backends
from .models import Served


@torch.inference_mode()
def compute(images: Tensor, asked: Sequence[tuple[Served, Tensor]]) -> list[Tensor]:
    """The logits that each model gives for its rows of ``images``.

    Args:
        images: (B, 3, H, W), or patches, in 0..255.
        asked: models of one family, and which rows each is asked for, sorted.

    Returns:
        float64 (rows, classes) on the CPU for each model.
    """
    first, _ = asked[0]
    cfg, device = first.tuned.cfg, first.device
    set_backends(cfg, device)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (first.pixels.mean, first.pixels.std))
    images = normalise(images.to(device), mean, std)
    asked = [(served, rows.to(device)) for served, rows in asked]
    answers: dict[Served, Tensor] = {}
    with autocast(cfg, device):
        sharing = [(served, rows) for served, rows in asked if served.inside]
        if len(sharing) > 1 and all(served.stages_agree for served, _ in sharing):
            answers |= _shared(images, sharing)
        answers |= {served: served.tuned.model(images[rows]) for served, rows in asked if served not in answers}
    return [answers[served].double().cpu() for served, _ in asked]


def _shared(images: Tensor, asked: list[tuple[Served, Tensor]]) -> dict[Served, Tensor]:
    """Logits of models that begin with stages of the backbone's; each leaves the common way where its own begins."""
    asked = sorted(asked, key=lambda one: len(one[0].inside))
    carrier = asked[-1][0]
    x, done, answers = images, 0, {}
    here = torch.arange(len(images), device=images.device)  # which images x has
    for i, (served, rows) in enumerate(asked):
        if len(served.inside) > done:
            wanted = torch.cat([rows for _, rows in asked[i:]]).unique()
            if len(wanted) < len(here):
                x, here = _rows(x, torch.searchsorted(here, wanted)), wanted
            for stage in carrier.inside[done : len(served.inside)]:
                x = stage.run(x)
            done = len(served.inside)
        own = _rows(x, torch.searchsorted(here, rows))  # a copy: what follows may work in place
        for stage in served.rest:
            own = stage.run(own)
        answers[served] = served.tuned.model.head(served.tuned.model.joined(own))
    return answers


def _rows(x: Tensor | tuple[Tensor, ...], rows: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Some images' part of what passes between stages."""
    return x[rows] if isinstance(x, Tensor) else tuple(part[rows] for part in x)
