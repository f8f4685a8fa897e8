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
import os
import sys

try:
    from src.utils.paths import given_path
    from src.utils.signals import REQUEUE, Interrupted, StopSignals
except ImportError as error:  # torch is missing, or the system is none of ours
    sys.exit(f"error: {error}")


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
    try:
        with StopSignals():
            from src.engine.command import train_command  # here: torch and timm take seconds to load

            return train_command(args)
    except Interrupted as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"stopped by {stopped}; the same command with --resume goes on from there", file=sys.stderr)
        return REQUEUE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
