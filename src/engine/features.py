"""Linear probing without repeating itself: where only the head trains, each image's features are computed once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..data.loader import ALL, Loader, Part, batch_order, part_of, split_batches
from ..models.vit_models import TunedViT


class FeatureLoader:
    """Batches of a loader's features (B, D) and labels (B,), in the order in which it would give its images.

    Args:
        loader: of images that look the same in every epoch.
    """

    def __init__(self, model: TunedViT, loader: Loader, autocast: torch.autocast):
        self.labels, self.device, self.batch_size, self.seed = (
            loader.labels,
            loader.device,
            loader.batch_size,
            loader.seed,
        )
        model.eval()
        with torch.no_grad(), autocast:
            self.features = torch.cat([model.features(images) for images, _ in loader])

    @property
    def batch_sizes(self) -> list[int]:
        return [len(batch) for batch in split_batches(torch.arange(len(self.labels)), self.batch_size)]

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def in_order(self, part: Part = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        which, count = part
        mine = torch.arange(len(self.labels))[which::count]
        return self._batches(mine.split(self.batch_size) if len(mine) else [])

    def epoch(self, number: int, first: int = 0, part: Part = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        order, *_ = batch_order(len(self.labels), self.seed, number)
        return self._batches([part_of(batch, part) for batch in split_batches(order, self.batch_size)[first:]])

    def _batches(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in batches:
            yield self.features[indices.to(self.device)], self.labels[indices].to(self.device)


def reuse_features(
    model: TunedViT, train: Loader, val: Loader | None, autocast: torch.autocast
) -> tuple[nn.Module, Loader | FeatureLoader, Loader | FeatureLoader | None]:
    """What to train on what: the head on features where nothing before it trains or changes, else all as given."""
    if not model.only_head_trains or train.images.pixels.random:
        return model, train, val
    return model.head, *(FeatureLoader(model, loader, autocast) if loader else None for loader in (train, val))
