"""WiSE: ensembles in weight space, between the pre-trained and the tuned model (Wortsman et al., 2022,
arXiv:2109.01903), for every method (as the unifying study, Mai et al., 2025, arXiv:2409.16434).

What a tap adds is scaled: W + alpha dW for a low-rank update, alpha times an adapter's output, a scale and shift that
are alpha of the way from the identity. Weights of the ViT that train, and the head's, are interpolated. Prompts have
no half-way point: where methods change the number of tokens, the features with and without all methods are
interpolated, and the ViT runs twice. Features that a method adds (VQT) reach the head multiplied by alpha.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .vit_models import TunedViT


class Halfway(nn.Module):
    """``model`` with only ``strength`` of what its methods do; images (B, 3, H, W) -> logits.

    Its sites do so themselves where no tap changes the number of tokens, see ``between``.
    """

    def __init__(self, model: TunedViT, strength: float):
        super().__init__()
        self.model = model
        self.strength = strength

    def forward(self, images: Tensor) -> Tensor:
        return self.model.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the head sees: images (B, 3, H, W) -> (B, D)."""
        if self.strength == 1:
            return self.model.features(images)
        pooled = self.model.pooled(images)
        if changes_tokens(self.model):
            with without_methods(self.model):
                pooled = self.model.pooled(images).lerp(pooled, self.strength)
        for method in self.model.methods.values():
            same, added = method.features(pooled).tensor_split([pooled.shape[1]], dim=1)
            pooled = torch.cat((pooled.lerp(same, self.strength), self.strength * added), dim=1)
        return pooled


def changes_tokens(model: TunedViT) -> bool:
    """Whether a tap changes the number of tokens."""
    return any(site.changes_tokens for site in model.sites.values())


@contextmanager
def without_methods(model: TunedViT) -> Iterator[None]:
    """Inside, no tap does anything."""
    for site in model.sites.values():
        site.idle = True
    try:
        yield
    finally:
        for site in model.sites.values():
            site.idle = False


@contextmanager
def between(
    model: TunedViT, start: dict[str, Tensor], alpha: float, head_alpha: float | None = None
) -> Iterator[Halfway]:
    """A network that is ``alpha`` of the way from the pre-trained model (0) to ``model`` (1).

    It borrows the weights of ``model``, which is itself again after the ``with`` block.

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
        for site in model.sites.values():
            site.strength = 1.0 if changes_tokens(model) else alpha
        yield Halfway(model, alpha)
    finally:
        with torch.no_grad():
            for name, value in tuned.items():
                own[name].copy_(value)
        for site in model.sites.values():
            site.strength = 1.0
