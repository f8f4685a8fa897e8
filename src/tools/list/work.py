"""From what is to be listed to its table."""

import argparse
from collections.abc import Callable, Sequence

from fvcore.common.config import CfgNode

from ...configs import checks
from ...configs.config import ConfigError, load_cfg
from ...utils.table import Table
from ..command import is_config


def methods(args: argparse.Namespace) -> Table:
    from ...models.listing import methods_table

    return methods_table(load_cfg(*first_and_pairs(args.arguments), checks.methods))


def tasks(args: argparse.Namespace) -> Table:
    from ...data.listing import tasks_table

    return tasks_table(_unchecked(*first_and_pairs(args.arguments)).DATA.DATAPATH)


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
    """The config or word that comes before KEY VALUE pairs, "" if there is none, and the pairs."""
    if arguments and is_config(arguments):
        return arguments[0], list(arguments[1:])
    return "", list(arguments)


def _word(args: argparse.Namespace) -> str:
    if len(args.arguments) > 1:
        raise ConfigError(f"one word to look for is expected, not {' '.join(args.arguments)}")
    return "".join(args.arguments)


def _unchecked(config_file: str, pairs: list[str]) -> CfgNode:
    return load_cfg(config_file, pairs, checks.nothing)
