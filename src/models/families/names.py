"""Names of modules and parameters, and which of them a description means."""

import re
from collections.abc import Iterable


def is_inside(name: str, part: str) -> bool:
    """Whether a module or parameter is ``part``, or belongs to it."""
    return name == part or name.startswith(f"{part}.")


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names that one of the regular expressions matches as a whole."""
    return [name for name in names if any(re.fullmatch(pattern, name) for pattern in patterns)]
