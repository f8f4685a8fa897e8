"""What the command lines of the tools on finished runs have in common."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...configs.config import ConfigError
from ...data.sources.base import IMAGE_ENDINGS
from ...utils.logging import setup_logging

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*")


def paths_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths, then KEY VALUE pairs from the first argument on that looks like a key and is no path.

    Raises:
        ConfigError: no path.
    """
    first = next((i for i, text in enumerate(arguments) if _is_key(text)), len(arguments))
    if not first:
        raise ConfigError("no RUN_DIR is given: name the folder of a finished run")
    return list(arguments[:first]), list(arguments[first:])


def _is_key(text: str) -> bool:
    """Whether an argument looks like a config key, and not like a path: cameras write IMG_0001.JPG."""
    return bool(KEY.fullmatch(text)) and not text.lower().endswith(IMAGE_ENDINGS) and not Path(text).exists()


def guarded(work: Callable[[argparse.Namespace], int | None], args: argparse.Namespace, stderr: bool = False) -> int:
    """The exit status of ``work(args)``: its own, or 0; 2 for settings with problems, 1 for what else a user can cause.

    The error is one line on stderr; with VITUNE_DEBUG in the environment it is Python's whole traceback.

    Args:
        stderr: log there, because stdout has the results.
    """
    setup_logging(stderr=stderr)
    try:
        return work(args) or 0
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        if os.environ.get("VITUNE_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
