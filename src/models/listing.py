"""The table of methods: what each is, from which paper, how much it trains and whether it folds away."""

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..configs.facts import image_size, is_native
from ..utils.table import Table
from ..utils.text import a_kind
from .drop_path import places
from .families import family_of, tokens_of
from .method import DoesNotFit, Method
from .pooling import set_pool
from .vit_backbones.build import architecture
from .vit_backbones.zoo import norm_of_all
from .vit_models import METHODS, SHORTHANDS, config_name, require_any_grid


def methods_table(cfg: CfgNode) -> Table:
    """METHODS; the parameters, without the head, are those with this config's backbone and keys.

    Where a method does not fit the backbone there is a dash, and the number of the reason below the table.

    Raises:
        ValueError: there is no such backbone, it does not take such images, or no method fits it.
    """
    feature = cfg.DATA.FEATURE or "sup_vitb16_imagenet21k"
    counts, reasons = counted(cfg, feature)
    numbers = {reason: number for number, reason in enumerate(dict.fromkeys(reasons.values()), 1)}
    also = {name: [short for short, (method, _) in SHORTHANDS.items() if method == name] for name in METHODS}
    trains, others = "what trains, beside the head", "not only on ViTs"
    columns = ("MODEL.TRANSFER_TYPE", trains, f"on {feature}", "folds", others, "paper")
    rows = [("linear", "nothing", "0", "yes", "yes", "")]
    for name, method in METHODS.items():
        names = ", ".join(f"`{n}`" for n in [name, *also[name]])
        marks = ("yes" if flag else "no" for flag in (method.folds, method.for_any_backbone))
        learns = method.described(cfg.MODEL.get(config_name(name), CfgNode()))
        count = f"- [{numbers[reasons[name]]}]" if name in reasons else counts[name]
        rows.append((names, learns, count, *marks, method.paper))
    programs = {
        columns[2]: ["0", *(counts.get(name, "-") for name in METHODS)],
        "does not fit": ["", *(reasons.get(name, "") for name in METHODS)],
    }
    note = "\n".join(f"[{number}] does not fit: {reason}" for reason, number in numbers.items())
    return Table(columns, rows, "llrccl", below={trains: "", "paper": ""}, note=note, in_json=programs)


def counted(cfg: CfgNode, feature: str) -> tuple[dict[str, str], dict[str, str]]:
    """Trained parameters without the head by method, and the reasons of those that do not fit the backbone.

    Raises:
        ValueError: none fits.
    """
    vit = network_of(cfg, feature)
    counts, reasons = {}, {}
    for name, method in METHODS.items():
        try:
            counts[name] = _count(name, method, cfg, vit)
        except ValueError as error:
            reasons[name] = str(error).replace(f"method {name!r}", "it")
    if not counts:
        raise ValueError(f"no method fits {feature}: {'; '.join(dict.fromkeys(reasons.values()))}")
    return counts, reasons


def network_of(cfg: CfgNode, feature: str) -> nn.Module:
    """The backbone without its weights (on the meta device), as methods get it.

    Raises:
        ValueError: there is no such backbone, or it does not take such images.
    """
    with torch.device("meta"):
        vit = architecture(feature, image_size(cfg))
        family_of(vit).prepare(vit)
        set_pool(vit, cfg.MODEL.POOL, norm_of_all(feature))
    if is_native(cfg):
        family_of(vit).native_patch(vit)
    return vit


def _count(name: str, method: type[Method], cfg: CfgNode, vit: nn.Module) -> str:
    """Trained parameters without the head.

    Raises:
        ValueError: the method does not fit the backbone.
    """
    model = cfg.MODEL.clone()
    model.defrost()
    keys, tokens = model.get(config_name(name), CfgNode()), tokens_of(vit, cfg.MODEL.POOL)
    if tokens is None and not method.for_any_backbone:
        raise DoesNotFit(f"it needs the tokens of a ViT, which {a_kind(vit)} does not have")
    if is_native(cfg):
        require_any_grid(name, method.one_grid)
    with torch.device("meta"):
        if method.drop_path(keys):
            places(vit)
        if budget := method.budget(keys):
            method.require_parts(keys, vit, tokens)
            most = sum(param.numel() for param in vit.parameters())
            return f"≈ {min(budget, most):,.0f}"
        keys.update(method.without_files_to_count)
        return f"{method.count(keys, vit, tokens):,}"
