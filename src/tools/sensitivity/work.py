"""What ``vitune sensitivity`` does: SPT's first stage, for every budget."""

import argparse
from pathlib import Path

from ...configs.config import ConfigError, load_cfg
from ...data.opened import open_data
from ...engine.device import choose_device
from ...engine.sensitivity import draw, make_allocations, report, spt_method
from ...engine.zero_shot import zero_shot_head
from ...models.vit_backbones.zoo import find_weights
from ...models.vit_models import build_model, config_name


def perform(args: argparse.Namespace) -> None:
    cfg = load_cfg(args.config_file, args.opts)
    if not (name := spt_method(cfg)):
        raise ConfigError(
            f"MODEL.TRANSFER_TYPE is {cfg.MODEL.TRANSFER_TYPE!r}: sensitivities are for spt_lora and spt_adapter"
        )
    node = config_name(name)
    try:
        budgets = [float(text) for text in args.budgets.split()] or [cfg.MODEL[node].BUDGET]
    except ValueError as error:
        raise ConfigError(f"--budgets {args.budgets!r}: these must be numbers, in millions of parameters") from error
    if not all(budget > 0 for budget in budgets):
        raise ConfigError(f"--budgets {args.budgets!r}: a budget must be more than 0")
    find_weights(cfg.DATA.FEATURE, cfg.MODEL.MODEL_ROOT, cfg.MODEL.WEIGHT_PATH)
    data, device = open_data(cfg), choose_device(cfg.DEVICE)
    folder = Path(args.out or Path(cfg.OUTPUT_DIR) / "sensitivity")
    for budget, allocation in zip(budgets, make_allocations(cfg, data, device, budgets), strict=True):
        stem = f"{data.task.name}_{cfg.DATA.FEATURE}_{name}_{budget:g}M_seed{cfg.SEED}".replace("/", "-").replace(
            ":", "-"
        )
        path = folder / f"{stem}.safetensors"
        allocation.save(path)
        draw(allocation, path.with_suffix(".png"))
        made = load_cfg(args.config_file, [*args.opts, f"MODEL.{node}.ALLOCATION", str(path)])
        head = zero_shot_head(made, data.class_names, device) if made.MODEL.HEAD_INIT == "zero_shot" else None
        print(report(allocation, build_model(made, len(data.class_names), head=head)))
        print(f"  wrote {path} and {path.with_suffix('.png').name}; use it with MODEL.{node}.ALLOCATION {path}")
