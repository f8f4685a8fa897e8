"""Command lines as ``vitune`` reads them, without doing what they ask for."""

import argparse

from src import cli
from src.tools import command
from src.tools.bench.__main__ import add_options_of
from src.tools.prepare.__main__ import add_convert_options


def parse(name: str, *argv: str) -> argparse.Namespace:
    """The options of ``vitune <name> ...``, with the config apart from the settings."""
    tool = cli.tool(name)
    add_options, rest = tool.add_options, list(argv)
    if name == "prepare" and argv[:1] == ("convert",):
        add_options, rest = add_convert_options, rest[1:]
    if name == "bench":
        what, *rest = rest
        add_options = lambda parser: add_options_of(what, parser)  # noqa: E731
    args = command.parse(name, tool.__doc__, add_options, rest)
    command.resolve_config(args)
    return args
