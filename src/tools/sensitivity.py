"""SPT's first stage alone: where a task wants its parameters, as a file for MODEL.SPT_LORA.ALLOCATION and a picture.

    python -m src.tools.sensitivity --config-file configs/digits.yaml MODEL.TRANSFER_TYPE spt_lora --budgets "0.01 0.02"

The gradients are computed once, and spent for every budget (in millions of parameters; default: the config's BUDGET).
"""

import argparse
import sys
from pathlib import Path

import torch

from ..configs.config import ConfigError, load_cfg
from ..data.opened import open_data
from ..engine.run import choose_device
from ..engine.sensitivity import draw, make_allocations, report, spt_method
from ..engine.zero_shot import zero_shot_head
from ..models.vit_backbones.zoo import find_weights
from ..models.vit_models import build_model, config_name
from ..utils.logging import setup_logging
from ..utils.paths import given_path


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="YAML file with settings")
    parser.add_argument("--budgets", default="", help="millions of parameters, separated by spaces")
    parser.add_argument(
        "--out", type=given_path, metavar="DIR", help="folder for the files (default: OUTPUT_DIR/sensitivity)"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the file's")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    try:
        _main(args)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def _main(args: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
