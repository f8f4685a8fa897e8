"""Computing the output of a frozen prefix once per image instead of in every epoch; see models/prefix.py."""

import logging
import time
from collections.abc import Iterator, Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..data.loader import ALL, Loader, Part, batch_order, on_device, part_of, split_batches
from ..data.opened import cache_folder
from ..data.rows import GIB, RowCache, Rows, quarter_of_memory
from ..models.memo import Memo
from ..models.prefix import Prefix, frozen_prefix
from ..models.vit_models import TunedViT
from ..utils.progress import tqdm
from .checkpoint import hash_of, hash_of_frozen
from .precision import how_computed

logger = logging.getLogger(__name__)

FORMAT = 1
# Matrix products of fewer images than this may differ in their last bits (seen with 1 and 2 images, 768 channels and
# several threads); training batches are rarely that small.
FEW = 8
ON_DEVICE = GIB  # bytes; smaller records of a split are kept on the GPU, whatever DATA.CACHE_PLACE is


class FeatureLoader:
    """Batches of a loader's records (B, W) and labels (B,), in the order of its images.

    Args:
        loader: of images that look the same in every epoch.
        records: (N, W), on any device.
    """

    def __init__(self, loader: Loader, records: Tensor):
        self.labels = loader.labels
        self.device = loader.device
        self.batch_size = loader.batch_size
        self.seed = loader.seed
        self.records = records
        self.targets = loader.device_labels
        self.drop_last = loader.drop_last

    @property
    def batch_sizes(self) -> list[int]:
        order = torch.arange(len(self.labels))
        return [len(batch) for batch in split_batches(order, self.batch_size, self.drop_last)]

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.in_order()

    def in_order(self, part: Part = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        rank, count = part
        mine = torch.arange(len(self.labels), device=self.records.device)[rank::count]
        return self._batches(mine.split(self.batch_size) if len(mine) else [])

    def epoch(self, number: int, first: int = 0, part: Part = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        order, *_ = batch_order(len(self.labels), self.seed, number)
        batches = split_batches(order.to(self.records.device), self.batch_size, self.drop_last)
        return self._batches([part_of(batch, part) for batch in batches[first:]])

    def _batches(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        if not batches:
            return
        where = torch.cat(list(batches)).to(self.device).split([len(indices) for indices in batches])  # one copy
        records = on_device((self.records[indices] for indices in batches), self.device)
        for some, indices in zip(records, where, strict=True):
            yield some, self.targets[indices]


def reuse_features(
    cfg: CfgNode,
    model: TunedViT,
    loaders: dict[str, Loader],
    autocast: torch.autocast,
    memo: Memo | None = None,
) -> tuple[nn.Module, dict[str, Loader | FeatureLoader]]:
    """The network and loaders to train: as given, or the part after the frozen prefix with records of every split."""
    memo = memo or Memo()
    if cfg.DATA.CACHE_FEATURES == "off" or loaders["train"].images.pixels.random:
        return model, loaders
    with autocast:
        prefix = frozen_prefix(model, loaders["train"].images.pixels.noise(2).to(loaders["train"].device), memo)
    if prefix is None:
        return model, loaders
    size = 8 * prefix.layout.width * sum(len(loader.labels) for loader in loaders.values()) / GIB
    if size > cfg.DATA.CACHE_FEATURES_GB:
        limit = cfg.DATA.CACHE_FEATURES_GB
        note = "the network is frozen up to %s; its activations are computed in every epoch, since they take %.3g GiB"
        logger.warning(f"note: {note} and DATA.CACHE_FEATURES_GB is %.3g", prefix.name, size, limit)
        return model, loaders

    start, cache = time.perf_counter(), _row_cache(cfg, loaders)
    facts = _facts(cfg, model, prefix, memo)
    records, reused = {}, []
    for name, loader in loaders.items():
        records[name], was_found = cache.open(
            _rows(loader, prefix, name, facts),
            lambda loader=loader, name=name: _compute(prefix, loader, name, autocast),
        )
        if records[name] is None:
            return model, loaders
        reused.append(was_found)
    logger.info(
        "frozen up to %s: activations of %s images %s, %.3g GiB, %.1f s",
        prefix.name,
        f"{sum(map(len, records.values())):,}",
        "found on disk" if all(reused) else "computed once",
        size,
        time.perf_counter() - start,
    )
    features = {name: FeatureLoader(loader, _placed(cfg, loader, records[name])) for name, loader in loaders.items()}
    suffix = memo.network(("suffix", prefix.name, prefix.layout), lambda: prefix.suffix)  # it may already be compiled
    return suffix, features


def _row_cache(cfg: CfgNode, loaders: dict[str, Loader]) -> RowCache:
    """The cache of records; images count towards DATA.CACHE_GB."""
    images = sum(loader.images.store.nbytes for loader in loaders.values() if loader.images.store)
    folder = None if cfg.DATA.CACHE == "off" else cache_folder(cfg.DATA.CACHE_DIR)
    return RowCache(folder, cfg.DATA.CACHE_GB * GIB - images, quarter_of_memory())


def _facts(cfg: CfgNode, model: TunedViT, prefix: Prefix, memo: Memo) -> dict:
    """Everything that determines a record, apart from the images and the batch size.

    The records of two images reflect what the weights do not: the number of heads, and this machine's arithmetic.
    """
    own = {name for name in model.vit.state_dict() if any(stage.has(name) for stage in prefix.stages)}
    return {
        "format": FORMAT,
        "up_to": prefix.name,
        "layout": repr(prefix.layout),
        "weights": hash_of_frozen(model, own, memo),
        "example": hash_of({"": prefix.example}),
    } | how_computed(cfg, prefix.example.device)


def _rows(loader: Loader, prefix: Prefix, name: str, facts: dict) -> Rows:
    images = loader.images
    return Rows(
        f"activations of {name}", f"{images.name}-features", len(images), prefix.layout.width, facts | loader.facts
    )


@torch.no_grad()
def _compute(prefix: Prefix, loader: Loader, name: str, autocast: torch.autocast) -> Iterator[Tensor]:
    """Yield the records of all images in order, some at a time, on the CPU."""
    with tqdm(desc=f"activations of {name}", total=len(loader.labels), unit="img", delay=1, leave=False) as bar:
        before = None
        for images, _ in loader:
            new = len(images)
            if before is not None and new < min(FEW, loader.batch_size) and loader.images.train:
                images = torch.cat((before[new - min(FEW, loader.batch_size) :], images))
            with autocast:
                records = prefix(images)
            yield records[-new:].cpu()
            before = images
            bar.update(new)


def _placed(cfg: CfgNode, loader: Loader, records: Tensor) -> Tensor:
    """The records on the device that DATA.CACHE_PLACE names, or on the GPU if they are small."""
    on_device = cfg.DATA.CACHE_PLACE == "device" or records.nbytes <= ON_DEVICE
    if loader.device.type != "cpu" and on_device:
        return records.to(loader.device)
    return records.clone() if cfg.DATA.CACHE_PLACE == "memory" else records
