"""From what is to be listed to its table."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from ...configs import checks
from ...configs.config import ConfigError, load_cfg
from ...utils.shipped import shipped
from ...utils.table import Table

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*")


def methods(args: argparse.Namespace) -> Table:
    from ...models.listing import methods_table

    return methods_table(load_cfg(*config_and_pairs(args.arguments), checks.methods))


def tasks(args: argparse.Namespace) -> Table:
    from ...data.listing import tasks_table

    return tasks_table(_unchecked(*config_and_pairs(args.arguments)).DATA.DATAPATH)


def backbones(args: argparse.Namespace) -> Table:
    from .backbones import backbones_table

    word, pairs = first_and_pairs(args.arguments)
    return backbones_table(_unchecked("", pairs).MODEL.MODEL_ROOT, word)


def recipes(args: argparse.Namespace) -> Table:
    from .recipes import recipes_table

    return recipes_table(_word(args), args.paper, args.method, args.task, args.tflops)


def configs(args: argparse.Namespace) -> Table:
    from .configs import configs_table

    return configs_table(_word(args))


def keys(args: argparse.Namespace) -> Table:
    from .keys import keys_table

    return keys_table(_word(args))


LISTINGS: dict[str, Callable[[argparse.Namespace], Table]] = {
    function.__name__: function for function in (methods, tasks, backbones, recipes, configs, keys)
}


def first_and_pairs(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """What comes before KEY VALUE pairs, "" if nothing does, and the pairs.

    Raises:
        ConfigError: more than one argument comes before them.
    """
    count = next((i for i, argument in enumerate(arguments) if KEY.fullmatch(argument)), len(arguments))
    if count > 1:
        raise ConfigError(f"one name and then KEY VALUE pairs are expected, not {' '.join(arguments[:count])}")
    return "".join(arguments[:count]), list(arguments[count:])


def config_and_pairs(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The file of the config that comes before KEY VALUE pairs, "" if none does, and the pairs."""
    name, pairs = first_and_pairs(arguments)
    return name if not name or Path(name).is_file() else str(shipped("configs") / f"{name}.yaml"), pairs


def _word(args: argparse.Namespace) -> str:
    if len(args.arguments) > 1:
        raise ConfigError(f"one word to look for is expected, not {' '.join(args.arguments)}")
    return "".join(args.arguments)


def _unchecked(config_file: str, pairs: list[str]) -> CfgNode:
    return load_cfg(config_file, pairs, checks.nothing)
