"""What ``vitune train`` does once its command line is read."""

import argparse
import logging
from pathlib import Path

from fvcore.common.config import CfgNode

from ...configs import checks
from ...configs.config import load_cfg
from ...engine.fit_folder import run_of
from ...utils.text import put_out

logger = logging.getLogger(__name__)


def perform(args: argparse.Namespace) -> int:
    """Train, test or list; the exit status. What is wrong with the config shows before torch is loaded."""
    if args.list_methods or args.list_backbones or args.list_tasks:
        return put_out(listing(args))
    config_file = args.config_file
    if args.run_dir and args.eval_only:
        args.run_dir = run_of(args.run_dir)
    if args.run_dir and not config_file and (args.resume or args.eval_only):
        config_file = str(args.run_dir / "config.yaml")
        if not Path(config_file).is_file():
            raise FileNotFoundError(f"{config_file} is missing: --run-dir must name a run's folder")
    train_or_test(load_cfg(config_file, args.opts, for_vpt=bool(args.train_type)), args)
    return 0


def train_or_test(cfg: CfgNode, args: argparse.Namespace) -> None:
    from ...engine.results import RunFolder, run_folder  # here: torch takes seconds to load
    from ...engine.run import evaluate_run, run

    folder = RunFolder(args.run_dir) if args.run_dir else run_folder(cfg)
    if args.eval_only:
        test = evaluate_run(folder, cfg)
        logger.info("result: test top-1 %.2f %% of %s images", 100 * test["top1"], f"{test['images']:,}")
    else:
        run(cfg, folder, args.resume)


def listing(args: argparse.Namespace) -> str:
    """The table of methods, of backbones or of tasks."""
    if args.list_methods:
        from ...models.listing import methods_table  # here: it builds networks

        return methods_table(load_cfg(args.config_file, args.opts, checks.methods)).markdown()
    cfg = load_cfg(args.config_file, args.opts, checks.nothing)
    if args.list_backbones:
        from ..list.backbones import backbones_table

        return backbones_table(cfg.MODEL.MODEL_ROOT).markdown(padded=True)
    from ...data.listing import tasks_table

    return tasks_table(cfg.DATA.DATAPATH).markdown(padded=True)
