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


def given_path(text: str) -> Path:
    """A path from the command line: ``--to=~/x``."""
    try:
        return Path(expand(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
