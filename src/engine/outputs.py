"""A network's outputs for every image of a split, features or logits, computed once and reused by later calls."""

from collections.abc import Callable, Iterator

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ..data.loader import Loader
from ..data.opened import cache_folder
from ..data.rows import GIB, RowCache, Rows, quarter_of_memory
from ..data.shifts import ShiftedLoader
from ..utils.progress import tqdm
from .precision import autocast, how_computed

FORMAT = 1


def outputs(
    cfg: CfgNode,
    what: str,
    network: Callable[[Tensor], Tensor],
    width: int,
    loader: Loader | ShiftedLoader,
    facts: dict,
) -> Tensor:
    """Float32 (N, width) on the CPU: ``network(images)`` for all images of ``loader``, in order.

    They are kept on disk in DATA.CACHE_DIR unless DATA.CACHE is "off".

    Args:
        what: a description such as "features of digits test".
        network: in eval mode, on the loader's device; computed in the precision of SOLVER.AMP.
        facts: everything that determines the network's outputs, as numbers and strings, such as a hash of its weights.

    Raises:
        MemoryError: they fit neither on disk nor in a quarter of the memory.
    """
    folder = None if cfg.DATA.CACHE == "off" else cache_folder(cfg.DATA.CACHE_DIR)
    cache = RowCache(folder, cfg.DATA.CACHE_GB * GIB, quarter_of_memory())
    packed = -(-width // 2)  # rows are stored as int64, two float32 each
    every = {"format": FORMAT, "what": what} | facts | loader.facts | how_computed(cfg, loader.device)
    rows = Rows(what, what.replace(" ", "-").replace("/", "-"), len(loader.labels), packed, every)
    records, _ = cache.open(rows, lambda: _compute(cfg, what, network, packed, loader))
    if records is None:
        raise MemoryError(
            f"{what} take {rows.nbytes / GIB:.1f} GiB: too much for the disk (DATA.CACHE_GB, DATA.CACHE_DIR) and for "
            "the memory"
        )
    return records.view(torch.float32)[:, :width]


@torch.inference_mode()
def _compute(
    cfg: CfgNode, what: str, network: Callable[[Tensor], Tensor], packed: int, loader: Loader | ShiftedLoader
) -> Iterator[Tensor]:
    """Yield the rows of all images, some at a time, on the CPU."""
    precision = autocast(cfg, loader.device)
    with tqdm(desc=what, total=len(loader.labels), unit="img", delay=1, leave=False) as bar:
        for images, _ in loader.in_order():
            with precision:
                out = network(images)
            out = out.float().cpu()
            row = out.new_zeros(len(out), 2 * packed)
            row[:, : out.shape[1]] = out
            yield row.view(torch.int64)
            bar.update(len(images))
