"""What the commands in the documentation would do, without doing it."""

import argparse
from functools import partial

from paths import ROOT

from src import cli
from src.tools import command, pretrain_demo
from src.tools.bench.__main__ import add_options_of
from src.tools.fit import coverage
from src.tools.prepare.__main__ import add_convert_options

MODULES = {module: name for name, (module, _) in cli.COMMANDS.items()}


def vitune(words: list[str]) -> argparse.Namespace:
    """The arguments of ``vitune <words>``, the config apart from the settings."""
    name, *words = words
    if name in ("completion", "--version"):
        return argparse.Namespace(config_file="")
    tool = cli.tool(name)
    add_options = tool.add_options
    if name == "prepare" and words[0] == "convert":
        add_options, words = add_convert_options, words[1:]
    if name == "bench":
        add_options, words = partial(add_options_of, words[0]), words[1:]
    args = command.parse(name, tool.__doc__, add_options, words)
    command.resolve_config(args)
    if getattr(args, "config_file", "") and (config := ROOT / "configs" / f"{args.config_file}.yaml").is_file():
        args.config_file = str(config)
    return args


def module_arguments(module: str, words: list[str]) -> argparse.Namespace:
    """The arguments of ``python -m <module> <words>``."""
    name = module.removeprefix("src.tools.")
    if name == "pretrain_demo":  # for those who make the demo, not for those who run it
        return command.parse(name, "", pretrain_demo.add_options, words)
    if name == "fit.coverage":
        return command.parse(name, "", coverage.add_options, words)
    return vitune([MODULES[name], *words])
