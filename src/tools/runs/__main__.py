"""Several runs one after another, and the table of what came out: mean and spread over seeds.

    vitune seeds digits --seeds "42 44 82" MODEL.TRANSFER_TYPE lora

Finished runs are not repeated, interrupted ones go on; a run that fails is reported and does not stop the others.
"""

import argparse
import sys

from ...configs.config import load_cfg
from ...configs.files import ConfigError
from .. import command

SEEDS = "42 44 82 100 800"  # VPT's and FreqFiT's


def add_options(parser: argparse.ArgumentParser) -> None:
    command.add_config(parser)
    parser.add_argument("--seeds", default="", help=f"seeds, separated by spaces (default: SEED, or {SEEDS})")


def work(args: argparse.Namespace) -> int | None:
    keys = args.opts[::2]
    if args.seeds.strip() and "SEED" in keys:
        raise ConfigError("both --seeds (SEEDS) and SEED are given: choose one")
    seeds = args.seeds or (args.opts[2 * keys.index("SEED") + 1] if "SEED" in keys else SEEDS)
    cfgs = [load_cfg(args.config_file, [*args.opts, "SEED", seed]) for seed in seeds.split()]
    from .work import perform  # here: torch takes seconds to load

    return perform(cfgs)


def main(argv: list[str]) -> int:
    return command.run("seeds", __doc__, add_options, work, argv, goes_on=command.GOES_ON)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
