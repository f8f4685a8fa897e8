"""The command lines of the tools on finished runs: their options, and where paths end and settings begin."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from ...configs.config import ConfigError
from ...data.sources.base import IMAGE_ENDINGS
from ...utils.paths import expand, given_path

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*")


def paths_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths, then KEY VALUE pairs from the first argument on that looks like a key and is no path.

    Raises:
        ConfigError: no path.
        ValueError: "~" without a home folder.
    """
    first = next((i for i, text in enumerate(arguments) if is_key(text)), len(arguments))
    if not first:
        raise ConfigError("no RUN_DIR is given: name the folder of a finished run")
    return [expand(path) for path in arguments[:first]], list(arguments[first:])


def is_key(text: str) -> bool:
    """Whether an argument looks like a config key, and not like a path: cameras write IMG_0001.JPG."""
    return bool(KEY.fullmatch(text)) and not text.lower().endswith(IMAGE_ENDINGS) and not Path(text).exists()


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools that take runs and test sets."""
    parser.add_argument("arguments", nargs="*", metavar="RUN_DIR ... [KEY VALUE ...]", help="finished runs, settings")
    parser.add_argument("--on", nargs="+", action="extend", default=[], metavar="SET", help="NAME=PATH, or a folder")
    parser.add_argument("--shift", nargs="+", action="extend", default=[], metavar="KIND=AMOUNT", help="see above")
    parser.add_argument("--classes", type=given_path, metavar="FILE", help="JSON or CSV: a set's classes -> the run's")
    parser.add_argument(
        "--to", type=given_path, metavar="DIR", help="where to write (default: in the first run's folder)"
    )


def add_image_options(parser: argparse.ArgumentParser, images: str) -> None:
    """Of tools that take a run, ``images`` ("IMAGES..." or "[IMAGES...]") and settings: ``args.paths``."""
    parser.usage = f"%(prog)s RUN_DIR {images} [options] [KEY VALUE ...]"
    parser.add_argument("paths", nargs="+", metavar="RUN_DIR IMAGES... KEY VALUE", help="see above")
