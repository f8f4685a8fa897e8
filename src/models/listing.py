"""The table of methods: what each is, from which paper, how much it trains and whether it folds away."""

import torch
from fvcore.common.config import CfgNode

from .families import FAMILIES
from .method import Method
from .vit_backbones.zoo import architecture
from .vit_models import METHODS, SHORTHANDS, TunedViT, config_name, parse


def methods_table(cfg: CfgNode) -> str:
    """A Markdown table of METHODS; the parameters, without the head, are those with this config's backbone and keys."""
    feature = cfg.DATA.FEATURE or "sup_vitb16_imagenet21k"
    size = tuple(cfg.DATA.IMAGE_SIZE) or (cfg.DATA.CROPSIZE, cfg.DATA.CROPSIZE)
    also = {name: [short for short, (method, _) in SHORTHANDS.items() if method == name] for name in METHODS}
    others = ", ".join(family.title for family in FAMILIES if not family.sequence)
    lines = [("MODEL.TRANSFER_TYPE", "what trains, beside the head", f"on {feature}", "folds", others, "paper")]
    lines.append(("linear", "nothing", "0", "yes", "yes", ""))
    for name, method in METHODS.items():
        names = ", ".join(f"`{n}`" for n in [name, *also[name]])
        count = _count(name, method, cfg, feature, size)
        marks = ("yes" if flag else "no" for flag in (method.folds, method.for_any_backbone))
        lines.append((names, method.learns, count, *marks, method.paper))
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "|---|---|--:|:-:|:-:|---|", *rows[1:]])


def _count(name: str, method: type[Method], cfg: CfgNode, feature: str, size: tuple[int, int]) -> str:
    """Trained parameters without the head; a dash where the method does not fit the backbone."""
    model = cfg.MODEL.clone()
    model.defrost()
    keys = model.get(config_name(name), CfgNode())
    if budget := method.budget(keys):
        return f"≈ {budget:,.0f}"
    keys.update(method.without_files_to_count)
    with torch.device("meta"):
        try:
            trained = TunedViT(architecture(feature, size), parse(name), model, 2).num_trained()
        except ValueError:
            return "-"
    return f"{sum(trained.values()) - trained['head']:,}"
