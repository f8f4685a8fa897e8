"""What the tools that take finished runs and test sets are asked for, read from their command line."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from .command import is_key, paths_and_settings
from .run import FinishedRun
from .sets import Wanted, parse_sets, read_mapping


@dataclass(frozen=True)
class Request:
    """Runs, other test sets, and where to write."""

    runs: list[str]
    changes: list[str]
    sets: list[Wanted]
    mapping: dict[str, str | None]
    to: Path | None

    def folder(self, run: FinishedRun, tool: str) -> Path:
        """Where the tool's files go."""
        return self.to or run.folder.path / tool


def read_request(args: argparse.Namespace) -> Request:
    """What ``add_study_options``'s options say, before anything is read but --classes.

    Raises:
        ConfigError: whatever is wrong with them.
    """
    runs, changes = paths_and_settings(args.arguments)
    lists = []
    for given in (args.on, args.shift):  # they also took the settings that came behind them
        cut = next((i for i, text in enumerate(given) if is_key(text)), len(given))
        lists.append(given[:cut])
        changes += given[cut:]
    return Request(runs, changes, parse_sets(*lists), read_mapping(str(args.classes or "")), args.to)
