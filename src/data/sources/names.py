"""Matching two sets of class names: class folders of two splits, or shards that number their classes differently."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence

from .base import DataError
from .text import composed

Spelling = Callable[[str], str]


def plain(name: str) -> str:
    """A class name without differences of spelling: case, "_", "-" and spaces."""
    return " ".join(composed(name).lower().replace("_", " ").replace("-", " ").split())


def match(
    theirs: Sequence[str], ours: Sequence[str], where: str, spellings: Sequence[Spelling] = (composed,)
) -> list[int | None]:
    """For each name of ``theirs``, the index of the same name in ``ours``, None if there is none.

    Identical names match first, then names that agree after each of ``spellings``.

    Raises:
        DataError: a match is ambiguous: a name fits several of ``ours``, or several names fit one of ``ours``.
    """
    indices = list(range(len(ours))) if list(theirs) == list(ours) else _matched(theirs, ours, where, spellings)
    by_ours = defaultdict(set)
    for name, index in zip(theirs, indices, strict=True):
        by_ours[index].add(name)
    for index, names in by_ours.items():
        if index is not None and len(names) > 1:
            raise DataError(f"{where} has {_quoted(sorted(names))}, which all match {ours[index]!r}: keep one")
    return indices


def _matched(theirs: Sequence[str], ours: Sequence[str], where: str, spellings: Sequence[Spelling]) -> list[int | None]:
    indices: list[int | None] = [None] * len(theirs)
    for spelling in (str, *spellings):
        spelled = defaultdict(list)
        for index, name in enumerate(ours):
            spelled[spelling(name)].append(index)
        for i, name in enumerate(theirs):
            same = spelled.get(spelling(name), []) if indices[i] is None else []
            if len(same) > 1:
                raise DataError(
                    f"{where} has {name!r}, which matches several: {_quoted([ours[index] for index in same])}"
                )
            indices[i] = same[0] if same else indices[i]
    return indices


def require_match(theirs: Sequence[str], ours: Sequence[str], where: str, whose: str) -> list[int]:
    """``match``, but every name of ``theirs`` must be in ``ours``.

    Raises:
        DataError: some are not.
    """
    indices = match(theirs, ours, where)
    if unknown := [name for name, index in zip(theirs, indices, strict=True) if index is None]:
        near = difflib.get_close_matches(plain(unknown[0]), [plain(name) for name in ours], 1)
        meant = next((f" (did you mean {name!r}?)" for name in ours if near and plain(name) == near[0]), "")
        raise DataError(f"{where} has classes that {whose} does not have: {_quoted(unknown[:5])}{meant}")
    return indices


def require_different(names: Sequence[str], where: str) -> None:
    """Raises DataError: two names look the same, for example an accent encoded in two ways."""
    seen = {}
    for name in names:
        if (other := seen.setdefault(composed(name), name)) != name:
            raise DataError(f"{where} has {other!a} and {name!a}, which look alike: merge them")


def _quoted(names: Sequence[str]) -> str:
    """Quoted names, so that leading and trailing spaces are visible."""
    return ", ".join(map(repr, names))
