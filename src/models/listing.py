"""The table of methods: what each is, from which paper, how much it trains and whether it folds away."""

import copy

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..configs.facts import image_size
from ..utils.table import Table
from .families import FAMILIES, family_of
from .method import Method
from .vit_backbones.build import architecture
from .vit_models import METHODS, SHORTHANDS, TunedViT, config_name, parse


def methods_table(cfg: CfgNode) -> Table:
    """METHODS; the parameters, without the head, are those with this config's backbone and keys.

    Raises:
        ValueError: no method works on the backbone; the message says why.
    """
    feature = cfg.DATA.FEATURE or "sup_vitb16_imagenet21k"
    size = image_size(cfg)
    network = require_support(feature, size)
    also = {name: [short for short, (method, _) in SHORTHANDS.items() if method == name] for name in METHODS}
    trains, others = "what trains, beside the head", ", ".join(f.title for f in FAMILIES if not f.sequence)
    columns = ("MODEL.TRANSFER_TYPE", trains, f"on {feature}", "folds", others, "paper")
    rows = [("linear", "nothing", "0", "yes", "yes", "")]
    for name, method in METHODS.items():
        names = ", ".join(f"`{n}`" for n in [name, *also[name]])
        marks = ("yes" if flag else "no" for flag in (method.folds, method.for_any_backbone))
        learns = method.described(cfg.MODEL.get(config_name(name), CfgNode()))
        rows.append((names, learns, _count(name, method, cfg, network), *marks, method.paper))
    return Table(columns, rows, "llrccl", below={trains: "", "paper": ""})


def require_support(feature: str, size: tuple[int, int]) -> nn.Module:
    """Backbone ``feature`` without its weights (on the meta device).

    Raises:
        ValueError: no method works on it: not one of ours, or not with such images.
    """
    with torch.device("meta"):
        network = architecture(feature, size)
    family_of(network)
    return network


def _count(name: str, method: type[Method], cfg: CfgNode, network: nn.Module) -> str:
    """Trained parameters without the head; a dash where the method does not fit the backbone."""
    model = cfg.MODEL.clone()
    model.defrost()
    keys = model.get(config_name(name), CfgNode())
    if budget := method.budget(keys):
        return f"≈ {budget:,.0f}"
    keys.update(method.without_files_to_count)
    own = copy.deepcopy(network)
    with torch.device("meta"):
        try:
            trained = TunedViT(own, parse(name), model, 2).num_trained()
        except ValueError:
            return "-"
    return f"{sum(trained.values()) - trained['head']:,}"
