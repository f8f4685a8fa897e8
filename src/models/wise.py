"""WiSE: ensembles in weight space, between the pre-trained and the tuned model (Wortsman et al., 2022,
arXiv:2109.01903), for every method (as the unifying study, Mai et al., 2025, arXiv:2409.16434).

What a tap adds is scaled: W + alpha dW for a low-rank update, alpha times an adapter's answer, a scale and shift that
are alpha of the way from doing nothing. Weights of the ViT that train, and the head's, are interpolated. Prompts have
no such half-way: of models whose methods change the number of tokens, the features with and without all methods are
interpolated, for which the ViT runs twice. Of features that a method adds (VQT) the head sees alpha times their values.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .vit_models import TunedViT


@contextmanager
def between(model: TunedViT, start: dict[str, Tensor], alpha: float, head_alpha: float | None = None) -> Iterator[None]:
    """Inside, ``model`` is ``alpha`` of the way from the pre-trained model (0) to itself (1).

    Args:
        start: the pre-trained values of the ViT's trained parameters, "vit.norm.weight", and of a head to start from,
            "head.last_layer.weight"; what is not there stays as it is.
        head_alpha: where the head is, if elsewhere.

    Raises:
        ValueError: ``start`` does not fit.
    """
    own = dict(model.named_parameters())
    if wrong := [name for name, value in start.items() if name not in own or own[name].shape != value.shape]:
        raise ValueError(f"the model has no parameter like {', '.join(wrong)}")
    if missing := [n for n, p in own.items() if p.requires_grad and n.startswith("vit.") and n not in start]:
        raise ValueError(f"the pre-trained values of {', '.join(missing)} are missing")
    tuned = {name: own[name].detach().clone() for name in start}
    try:
        with torch.no_grad():
            for name, value in start.items():
                weight = alpha if head_alpha is None or not name.startswith("head.") else head_alpha
                own[name].copy_(value.to(own[name]).lerp(tuned[name], weight))
        model.scale_methods(alpha)
        yield
    finally:
        with torch.no_grad():
            for name, value in tuned.items():
                own[name].copy_(value)
        model.scale_methods(1.0)
