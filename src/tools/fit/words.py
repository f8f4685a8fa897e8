"""Counts and lists in sentences."""

from collections.abc import Sequence


def counted(value: int, what: str, several: str = "") -> str:
    """1 pair, 1,234 pairs; ``several`` is the plural where it is not formed by an s."""
    return f"{value:,} {what if value == 1 else several or f'{what}s'}"


def listed(names: Sequence[str], most: int) -> str:
    """a, b, c and 2 more"""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
