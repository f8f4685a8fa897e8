"""One run from a config: train and test, go on with an interrupted run, or test a finished one again.

    python train.py --config-file configs/digits.yaml MODEL.TRANSFER_TYPE lora FREQFIT freqfit SEED 44
    python train.py --config-file configs/digits.yaml MODEL.TRANSFER_TYPE lora FREQFIT freqfit SEED 44 --resume
    python train.py --run-dir output/digits/... --eval-only
    python train.py --list-methods DATA.FEATURE sup_vitl16_imagenet21k
    python train.py --list-tasks DATA.DATAPATH data
    torchrun --nproc_per_node 4 train.py --config-file configs/digits.yaml MODEL.TRANSFER_TYPE lora

Exit status: 0 when the result was written (its last line says it); 2 for a config with problems; 75 when SIGTERM,
SIGINT or SIGUSR1 asked the run to stop and the same command with --resume goes on; 1 for anything else.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from src.configs import checks
from src.configs.config import ConfigError, load_cfg
from src.data.listing import tasks_table
from src.engine.results import RunFolder, run_folder
from src.engine.run import evaluate_run, run
from src.models.listing import methods_table
from src.utils import distributed
from src.utils.logging import setup_logging
from src.utils.paths import given_path
from src.utils.signals import REQUEUE, Interrupted

logger = logging.getLogger("train")


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="YAML file with settings")
    parser.add_argument(
        "--run-dir", type=given_path, metavar="DIR", help="the run's folder (default: named by the config)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run; print a finished one")
    parser.add_argument("--eval-only", action="store_true", help="test a finished run's weights again")
    parser.add_argument("--list-methods", action="store_true", help="print the table of methods, for this backbone")
    parser.add_argument("--list-tasks", action="store_true", help="print the table of data sets, and which are here")
    parser.add_argument("--train-type", default="", help=argparse.SUPPRESS)  # VPT's command lines have it
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the file's")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str]) -> int:
    args = parse_args(argv)
    setup_logging()
    try:
        return _main(args)
    except ConfigError as error:
        return _fail(error, 2)
    except torch.OutOfMemoryError as error:
        hint = "less memory: SOLVER.AMP auto, MODEL.GRAD_CHECKPOINT True, SOLVER.ACCUMULATE 4, DATA.EVAL_BATCH_SIZE 32"
        return _fail(f"{error}\n{hint}", 1)
    except (ValueError, OSError, FloatingPointError, dist.DistError) as error:
        if os.environ.get("VITUNE_DEBUG"):
            raise
        return _fail(error, 1)
    except Interrupted as error:
        if distributed.is_first():
            print(f"stopped by {error}; the same command with --resume goes on from there", file=sys.stderr)
        return REQUEUE
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume goes on after the last finished epoch", file=sys.stderr)
        return 130


def _main(args: argparse.Namespace) -> int:
    config_file = args.config_file
    if args.list_methods:
        print(methods_table(load_cfg(config_file, args.opts, checks.methods)))
        return 0
    if args.list_tasks:
        print(tasks_table(load_cfg(config_file, args.opts, lambda cfg: []).DATA.DATAPATH))
        return 0
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


def _fail(error: Exception | str, status: int) -> int:
    rank, count = distributed.expected_rank(), distributed.expected()
    who = f"process {rank} of {count}: " if count > 1 else ""
    print(f"error: {who}{error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
