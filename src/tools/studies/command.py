"""What the command lines of the tools on finished runs have in common."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...configs.config import ConfigError
from ...utils.logging import setup_logging

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*")


def paths_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths, then KEY VALUE pairs from the first argument on that looks like a key and is no path.

    Raises:
        ConfigError: no path.
    """
    first = next(
        (i for i, text in enumerate(arguments) if KEY.fullmatch(text) and not Path(text).exists()), len(arguments)
    )
    if not first:
        raise ConfigError("no RUN_DIR is given: name the folder of a finished run")
    return list(arguments[:first]), list(arguments[first:])


def guarded(work: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """The exit status of ``work(args)``: 0, 2 for settings with problems, 1 for anything else a user can cause.

    The error is one line on stderr; with VITUNE_DEBUG in the environment it is Python's whole traceback.
    """
    setup_logging()
    try:
        work(args)
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        if os.environ.get("VITUNE_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0
