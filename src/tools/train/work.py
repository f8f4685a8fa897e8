"""What ``vitune train`` does once its command line is read."""

import argparse
import logging
from pathlib import Path

from ...configs import checks
from ...configs.config import load_cfg
from ...data.listing import tasks_table
from ...engine.results import RunFolder, run_folder
from ...engine.run import evaluate_run, run
from ...models.listing import methods_table
from ...utils.text import put_out

logger = logging.getLogger(__name__)


def perform(args: argparse.Namespace) -> int:
    """Train, test or list; the exit status."""
    config_file = args.config_file
    if args.list_methods:
        return put_out(methods_table(load_cfg(config_file, args.opts, checks.methods)))
    if args.list_tasks:
        return put_out(tasks_table(load_cfg(config_file, args.opts, lambda cfg: []).DATA.DATAPATH))
    if args.run_dir and not config_file and (args.resume or args.eval_only):
        config_file = str(args.run_dir / "config.yaml")
        if not Path(config_file).is_file():
            raise FileNotFoundError(f"{config_file} is missing: --run-dir must name a run's folder")
    cfg = load_cfg(config_file, args.opts, for_vpt=bool(args.train_type))
    folder = RunFolder(args.run_dir) if args.run_dir else run_folder(cfg)
    if args.eval_only:
        test = evaluate_run(folder, cfg)
        logger.info("result: test top-1 %.2f %% of %s images", 100 * test["top1"], f"{test['images']:,}")
    else:
        run(cfg, folder, args.resume)
    return 0
