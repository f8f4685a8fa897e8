"""Counts, times and lists in sentences."""

from collections.abc import Sequence

# Of a test result outside the promise, where the two intervals overlap.
CHANCE = "but so near that chance alone explains it"


def counted(value: int, what: str, several: str = "") -> str:
    """1 pair, 1,234 pairs; ``several`` is the plural where it is not formed by an s."""
    return f"{value:,} {what if value == 1 else several or f'{what}s'}"


def listed(names: Sequence[str], most: int) -> str:
    """a, b, c and 2 more"""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def seconds(value: float) -> str:
    """1.2 s, 34 s, 5 min 6 s, 2 h 3 min"""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
