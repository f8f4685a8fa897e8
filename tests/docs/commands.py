"""What the commands in the documentation would do, without doing it."""

import argparse
import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType

import pytest
from paths import ROOT

import train

TOOLS = {"seeds": "runs"}  # commands with another name than their tool
COMING = {"list", "init", "doctor"}
WITH_CONFIG = {"train", "seeds", "tune", "sensitivity"}


class Parsed(BaseException):
    """A command's arguments have been parsed."""


def arguments_of(main: Callable[[list[str]], object], words: list[str]) -> argparse.Namespace:
    """What ``main`` understands of the command line ``words``; it gets no further than that."""

    def then_stop(parse: Callable) -> Callable:
        def parse_and_stop(*args, **kwargs):
            raise Parsed(parse(*args, **kwargs))

        return parse_and_stop

    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, then_stop(getattr(argparse.ArgumentParser, name)))
        with pytest.raises(Parsed) as stopped:
            main(words)
    return stopped.value.args[0]


def tool_module(name: str) -> ModuleType:
    """The module with the ``main`` of ``python -m src.tools.<name>``."""
    module = f"src.tools.{name}"
    if importlib.util.find_spec(module).submodule_search_locations:
        module += ".__main__"
    return importlib.import_module(module)


def vitune(words: list[str]) -> argparse.Namespace:
    """The arguments of ``vitune <words>``."""
    name, *words = words
    if name in COMING:
        return argparse.Namespace(config_file="")
    if name in WITH_CONFIG and not words[0].startswith("-"):
        config = ROOT / "configs" / f"{words[0]}.yaml"
        words = ["--config-file", str(config) if config.is_file() else words[0], *words[1:]]
    main = train.main if name == "train" else tool_module(TOOLS.get(name, name)).main
    return arguments_of(main, words)
