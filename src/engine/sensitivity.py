"""SPT's first stage: squared gradients over a task's training images, and how a budget is allocated by them."""

import dataclasses
import logging
import time
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.opened import Data
from ..models.allocation import UNIT, Allocation, allocate, pieces
from ..models.drop_path import set_drop_path
from ..models.methods.spt import SPT
from ..models.sites import APART
from ..models.vit_models import METHODS, TunedViT, build_model, config_name, parse
from ..utils.plots import heat_map
from ..utils.progress import tqdm
from .results import RunFolder

logger = logging.getLogger(__name__)


def spt_method(cfg: CfgNode) -> str:
    """The method of ``MODEL.TRANSFER_TYPE`` that needs an allocation, "" if none does."""
    named = [name for name in parse(cfg.MODEL.TRANSFER_TYPE) if issubclass(METHODS[name], SPT)]
    return named[0] if named else ""


def needs_allocation(cfg: CfgNode) -> bool:
    """Whether an allocation has to be made, from the data, before the model can be."""
    name = spt_method(cfg)
    return bool(name) and not cfg.MODEL[config_name(name)].ALLOCATION


def with_allocation(cfg: CfgNode, data: Data, device: torch.device, folder: RunFolder, resume: bool) -> CfgNode:
    """The config with an allocation for its SPT method; if it names none, one is made in the run's folder."""
    if not needs_allocation(cfg):
        return cfg
    name = spt_method(cfg)
    if not (resume and folder.allocation.is_file()):
        (allocation,) = make_allocations(cfg, data, device, [cfg.MODEL[config_name(name)].BUDGET])
        allocation.save(folder.allocation)
        draw(allocation, folder.allocation.with_suffix(".png"))
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL[config_name(name)].ALLOCATION = str(folder.allocation)
    cfg.freeze()
    return cfg


def make_allocations(cfg: CfgNode, data: Data, device: torch.device, budgets: list[float]) -> list[Allocation]:
    """One allocation per budget, in millions of parameters, from a single pass over the training images.

    Raises:
        ValueError: a budget cannot be met even roughly.
    """
    start, name = time.perf_counter(), spt_method(cfg)
    keys = cfg.MODEL[config_name(name)]
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.TRANSFER_TYPE = "linear"
    plain.FREQFIT = ""
    plain.MODEL.HEAD_INIT = "vpt"
    model = build_model(plain, len(data.class_names)).to(device)
    sensitivity, images = estimate(model, first_images(data, keys), cfg, keys, device)
    logger.info("sensitivities of %s from %d images in %.1f s", cfg.DATA.FEATURE, images, time.perf_counter() - start)
    allocations = []
    for budget in budgets:
        allocation = allocate(model.vit, sensitivity, METHODS[name].rules(keys, model.vit), budget * UNIT)
        about = {
            "method": name,
            "backbone": cfg.DATA.FEATURE,
            "task": data.task.name,
            "images": images,
            "seed": cfg.SEED,
        }
        allocations.append(dataclasses.replace(allocation, about=about | allocation.about))
        logger.info(
            "budget %s: %s parameters as counted in the paper, from the %s most sensitive",
            *(f"{allocation.about[key]:,.0f}" for key in ("budget", "total", "tau")),
        )
    return allocations


def about_allocation(cfg: CfgNode) -> dict | None:
    """The record of the allocation that a config names; None if it names none."""
    if not (name := spt_method(cfg)):
        return None
    about = Allocation.load(cfg.MODEL[config_name(name)].ALLOCATION).about
    return {key: value for key, value in about.items() if key not in ("sensitive", "matrices")}


def first_images(data: Data, keys: CfgNode) -> Data:
    """The task with only the training images that are used: the first in file order, or, if those are sorted by class,
    a fixed random choice."""
    train = data.splits["train"]
    count = min(len(train), keys.NUM_BATCHES * keys.BATCH_SIZE)
    labels = torch.from_numpy(train.labels)
    order = torch.arange(len(train))
    if bool((labels.diff() >= 0).all()):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(data, splits={"train": train.take(order[:count].numpy())})


def estimate(
    model: TunedViT, data: Data, cfg: CfgNode, keys: CfgNode, device: torch.device
) -> tuple[dict[str, Tensor], int]:
    """The sensitivity of each piece of the ViT, sum over batches of (d loss / d entry)^2, and the number of images.

    As in the paper's code, the head is new and random, and drop-path is active. Deterministic for a SEED.
    """
    loaders, _ = data.loaders(cfg, device)
    loader = loaders["train"].altered(batch_size=keys.BATCH_SIZE)
    torch.manual_seed(cfg.SEED)
    new_head(model)
    drop_paths(model.vit, keys.VIT_DROP_PATH)
    return squared_gradients(model, tqdm(loader, "sensitivity", unit="batch", delay=1, leave=False)), len(loader.labels)


def squared_gradients(model: TunedViT, batches) -> dict[str, Tensor]:
    """Sum over (images, labels) batches of each piece's squared gradient of the mean cross-entropy."""
    parts = pieces(model.vit)
    params = {name: param for name, param in model.vit.named_parameters() if name in {p.param for p in parts.values()}}
    for param in params.values():
        param.requires_grad = True
    sums = {name: torch.zeros_like(param) for name, param in params.items()}
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        for name, grad in zip(params, grads, strict=True):
            if grad is not None:
                sums[name] += grad.square()
    for param in params.values():
        param.requires_grad = False
    return {name: piece.of(sums[piece.param]) for name, piece in parts.items()}


def new_head(model: TunedViT) -> None:
    """A random head, as in the paper's code: with a head that starts at zero, nothing before it has a gradient."""
    nn.init.trunc_normal_(model.head.last_layer.weight, std=0.02)
    nn.init.zeros_(model.head.last_layer.bias)


def drop_paths(vit: nn.Module, rate: float) -> None:
    """Give the blocks an active drop-path that rises from 0 to ``rate``; the rest stays in eval mode."""
    for module in set_drop_path(vit, rate):
        module.train()


def report(allocation: Allocation, model: TunedViT) -> str:
    """What is actually trained, in a few lines."""
    about = allocation.about
    trained, dropped = model.num_trained(), model.methods[about["method"]].dropped
    lines = [
        f"  {len(about['modules'])} weights get a module, {len(about['vectors'])} vectors are trained whole, "
        f"{len(allocation.masked) - dropped:,} single entries are trained",
        f"  trained parameters: {sum(trained.values()) - trained['head']:,} + {trained['head']:,} in the head",
    ]
    if dropped:
        lines.append(f"  {dropped:,} selected entries of norms are not trained, as in the original code")
    return "\n".join(lines)


def draw(allocation: Allocation, path: Path) -> None:
    """A heat map of blocks by operations: the number of most sensitive entries per weight; dots mark modules."""
    about = allocation.about
    cells = {_cell(name): name for name in about["matrices"]}
    rows, ops = (list(dict.fromkeys(place[i] for place in cells)) for i in (0, 1))
    ops.sort(key=lambda op: op not in APART)
    heat_map(
        [[about["sensitive"].get(cells.get((row, op))) for op in ops] for row in rows],
        [row.replace("blocks.", "") for row in rows],
        ops,
        [[cells.get((row, op)) in about["modules"] for op in ops] for row in rows],
        title=f"{about['task']}, {about['backbone']}\nof the {about['tau']:,} most sensitive parameters (budget "
        f"{about['budget']:,.0f}), dots: {about['method']} modules",
        ylabel="block",
        path=path,
    )


def _cell(name: str) -> tuple[str, str]:
    """The row and column of a weight: ("blocks.0", "attn.q"), ("layers.1.downsample", "reduction")."""
    place = name.removesuffix(".weight")
    op = next((op for op in APART if place.endswith(f".{op}")), place.rsplit(".", 1)[-1])
    return place.removesuffix(f".{op}"), op
