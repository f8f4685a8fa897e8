"""Where runs lie: what the FOLDERs of a command line stand for, and which folder of a fit is its model."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...configs.config import ConfigError
from ...engine.fit_folder import RESULT, run_of
from ...utils.paths import expand

TUNED = "tuned.safetensors"
NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+-]{0,99})=(.+)", re.DOTALL)


def run_at(folder: Path) -> Path | None:
    """The run that a folder is, or that a fit has ended with; None if it is neither."""
    folder = run_of(folder)
    return folder if (folder / TUNED).is_file() else None


def runs_below(folder: Path) -> list[Path]:
    """All runs in a folder, sorted; of a fit only the one that it ended with."""
    fits = [path.parent for path in folder.rglob(RESULT)]
    runs = [path.parent for path in folder.rglob(TUNED)]
    return sorted(run for run in runs if not any(run != run_of(fit) and run.is_relative_to(fit) for fit in fits))


def runs_of(arguments: Sequence[str]) -> tuple[list[tuple[str, Path]], list[Path]]:
    """(name, run's folder) for all that the FOLDERs of a command line hold, "" for no name; and the FOLDERs.

    Raises:
        ConfigError: a folder is missing or has no runs, or a name is given to several.
    """
    found, roots, problems = [], [], []
    for text in arguments:
        named = None if Path(text).exists() else NAMED.fullmatch(text)
        name, place = named.groups() if named else ("", text)
        folder = Path(expand(place))
        folder = folder.parent if folder.name == TUNED else folder
        run = run_at(folder)
        runs = [run] if run else runs_below(folder)
        if not folder.is_dir():
            problems.append(f"{folder} is missing, or no folder")
        elif not runs:
            problems.append(f"{folder} has no {TUNED}, nor has a folder in it: name a finished run")
        elif name and len(runs) > 1:
            problems.append(f"{text}: {len(runs)} runs are there, and one name is given")
        found += [(name, run) for run in runs]
        roots.append(folder)
    names = [name for name, _ in found if name]
    problems += [f"two runs are called {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
    if problems:
        raise ConfigError("\n".join(problems))
    return found, roots
