"""train.py after its command line is parsed: configs are checked before torch is imported, which is slow."""

import argparse
import logging
import os
import sys
from pathlib import Path

from ..configs import checks
from ..configs.config import ConfigError, load_cfg
from ..utils import launch
from ..utils.logging import setup_logging
from ..utils.text import put_out

logger = logging.getLogger("train")


def train_command(args: argparse.Namespace) -> int:
    """Run train.py with these arguments; returns the exit status."""
    setup_logging()
    try:
        return _command(args)
    except ConfigError as error:
        return _fail(error, 2)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("VITUNE_DEBUG"):
            raise
        return _fail(error, 1)
    except RuntimeError as error:  # of torch's, which may not be loaded, two kinds are no faults of the program
        message = _of_torch(error)
        if not message or os.environ.get("VITUNE_DEBUG"):
            raise
        return _fail(message, 1)


def _of_torch(error: RuntimeError) -> str:
    """What to print of torch's error; "" if it must be seen whole."""
    import torch
    import torch.distributed as dist

    if isinstance(error, torch.OutOfMemoryError):
        hint = "less memory: SOLVER.AMP auto, MODEL.GRAD_CHECKPOINT True, SOLVER.ACCUMULATE 4, DATA.EVAL_BATCH_SIZE 32"
        return f"{error}\n{hint}"
    return str(error) if isinstance(error, dist.DistError) else ""


def _command(args: argparse.Namespace) -> int:
    config_file = args.config_file
    if args.list_methods:
        return _list_methods(args)
    if args.list_tasks:
        from ..data.listing import tasks_table

        return put_out(tasks_table(load_cfg(config_file, args.opts, checks.nothing).DATA.DATAPATH))
    if args.run_dir and not config_file and (args.resume or args.eval_only):
        config_file = str(args.run_dir / "config.yaml")
        if not Path(config_file).is_file():
            raise FileNotFoundError(f"{config_file} is missing: --run-dir must name a run's folder")
    cfg = load_cfg(config_file, args.opts, for_vpt=bool(args.train_type))

    from .results import RunFolder, run_folder
    from .run import evaluate_run, run

    folder = RunFolder(args.run_dir) if args.run_dir else run_folder(cfg)
    if args.eval_only:
        test = evaluate_run(folder, cfg)
        logger.info("result: test top-1 %.2f %% of %s images", 100 * test["top1"], f"{test['images']:,}")
    else:
        run(cfg, folder, args.resume)
    return 0


def _list_methods(args: argparse.Namespace) -> int:
    cfg = load_cfg(args.config_file, args.opts, checks.methods)

    from ..models.listing import methods_table

    return put_out(methods_table(cfg))


def _fail(error: Exception | str, status: int) -> int:
    rank, count = launch.expected_rank(), launch.expected()
    who = f"process {rank} of {count}: " if count > 1 else ""
    print(f"error: {who}{error}", file=sys.stderr)  # noqa: T201
    return status
