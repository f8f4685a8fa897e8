"""Paths that begin with "~": it means the home folder wherever a path is given, not only in a shell."""

import argparse
import os
from pathlib import Path


def expand(text: str) -> str:
    """``~/data`` -> ``/home/me/data``; other paths stay as they are.

    Raises:
        ValueError: there is no such home folder, for example for users without an account.
    """
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ValueError(f"{text!r}: there is no such home folder; write ./{text}, or the full path")
    return expanded


def user_cache() -> Path:
    """$XDG_CACHE_HOME/vitune, or ~/.cache/vitune; for users without a home folder, a path where nothing is kept."""
    place = os.path.expanduser(os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "vitune"))
    return Path(os.devnull, "no home folder") if place.startswith("~") else Path(place)


def given_path(text: str) -> Path:
    """A path from the command line: ``--to=~/x``."""
    try:
        return Path(expand(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
