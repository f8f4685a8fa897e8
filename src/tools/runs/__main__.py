"""Train with several seeds and print mean and spread.

    vitune seeds digits MODEL.TRANSFER_TYPE lora
    vitune seeds digits --seeds "42 44 82" MODEL.TRANSFER_TYPE lora

Finished runs are not repeated, interrupted ones are resumed. If a run fails, the others still run.

Exit status: 0 if every run has a result; 1 if some failed; 2 for a problem with the config; 75 if a
signal stopped it, and the same command goes on.
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
