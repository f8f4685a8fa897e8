"""What the command lines of the tools on finished runs have in common."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...configs.config import ConfigError
from ...data.sources.base import IMAGE_ENDINGS
from ...utils.logging import setup_logging
from ...utils.paths import expand, given_path
from .run import FinishedRun
from .sets import Wanted, parse_sets, read_mapping

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*")


def paths_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths, then KEY VALUE pairs from the first argument on that looks like a key and is no path.

    Raises:
        ConfigError: no path.
        ValueError: "~" without a home folder.
    """
    first = next((i for i, text in enumerate(arguments) if _is_key(text)), len(arguments))
    if not first:
        raise ConfigError("no RUN_DIR is given: name the folder of a finished run")
    return [expand(path) for path in arguments[:first]], list(arguments[first:])


def _is_key(text: str) -> bool:
    """Whether an argument looks like a config key, and not like a path: cameras write IMG_0001.JPG."""
    return bool(KEY.fullmatch(text)) and not text.lower().endswith(IMAGE_ENDINGS) and not Path(text).exists()


@dataclass(frozen=True)
class Command:
    """What every study is told: runs, other test sets, and where to write."""

    runs: list[str]
    changes: list[str]
    sets: list[Wanted]
    mapping: dict[str, str | None]
    to: Path | None

    def folder(self, run: FinishedRun, tool: str) -> Path:
        """Where the study's files go."""
        return self.to or run.folder.path / tool


def study_parser(doc: str) -> argparse.ArgumentParser:
    """Options that all studies of runs on test sets have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="*", metavar="RUN_DIR ... [KEY VALUE ...]", help="finished runs, settings")
    parser.add_argument("--on", nargs="+", action="extend", default=[], metavar="SET", help="NAME=PATH, or a folder")
    parser.add_argument("--shift", nargs="+", action="extend", default=[], metavar="KIND=AMOUNT", help="see above")
    parser.add_argument("--classes", type=given_path, metavar="FILE", help="JSON or CSV: a set's classes -> the run's")
    parser.add_argument(
        "--to", type=given_path, metavar="DIR", help="where to write (default: in the first run's folder)"
    )
    return parser


def image_parser(doc: str, images: str) -> argparse.ArgumentParser:
    """Of tools that take a run, ``images`` ("IMAGES..." or "[IMAGES...]") and settings, as ``args.paths``."""
    parser = argparse.ArgumentParser(
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"%(prog)s RUN_DIR {images} [options] [KEY VALUE ...]",
    )
    parser.add_argument("paths", nargs="+", metavar="RUN_DIR IMAGES... KEY VALUE", help="see above")
    return parser


def read_command(args: argparse.Namespace) -> Command:
    """What ``study_parser``'s options say, before anything is read but --classes.

    Raises:
        ConfigError: whatever is wrong with them.
    """
    runs, changes = paths_and_settings(args.arguments)
    lists = []
    for given in (args.on, args.shift):  # they also took the settings that came behind them
        cut = next((i for i, text in enumerate(given) if _is_key(text)), len(given))
        lists.append(given[:cut])
        changes += given[cut:]
    return Command(runs, changes, parse_sets(*lists), read_mapping(str(args.classes or "")), args.to)


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
