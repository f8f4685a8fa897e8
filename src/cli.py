"""The command ``vitune``."""

import argparse


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="vitune", description="Fine-tune Vision Transformers parameter-efficiently.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    train = commands.add_parser("train", help="train and test one run from a config")
    train.add_argument("config_file", metavar="CONFIG", help="YAML file with settings, or the name of one that ships")
    train.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the file's")
    train.set_defaults(run_dir=None, resume=False, eval_only=False, list_methods=False, list_tasks=False, train_type="")
    args = parser.parse_args(argv)

    from pathlib import Path  # here: --help does not wait for torch

    from .engine.command import train_command
    from .utils.shipped import shipped

    if not Path(args.config_file).exists():
        args.config_file = str(shipped("configs") / f"{args.config_file}.yaml")
    return train_command(args)
