"""Which of their names is which of ours: class folders of two splits, shards that number classes on their own."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence

from .base import DataError
from .text import composed

Spelling = Callable[[str], str]


def plain(name: str) -> str:
    """A class name without what spellings differ in: capitals, "_", "-" and spaces."""
    return " ".join(composed(name).lower().replace("_", " ").replace("-", " ").split())


def match(
    theirs: Sequence[str], ours: Sequence[str], where: str, spellings: Sequence[Spelling] = (composed,)
) -> list[int | None]:
    """For each of their names the index of the same one of ours, None where there is none.

    The very name counts first, then the same in each of ``spellings``.

    Raises:
        DataError: a name is like several of ours, or several are like one of ours and one of them is not the very same.
    """
    found = list(range(len(ours))) if list(theirs) == list(ours) else _matched(theirs, ours, where, spellings)
    by_ours = defaultdict(set)
    for name, index in zip(theirs, found, strict=True):
        by_ours[index].add(name)
    for index, names in by_ours.items():
        if index is not None and len(names) > 1:
            raise DataError(f"{where} has {_said(sorted(names))}, which are all like {ours[index]!r}: which is it?")
    return found


def _matched(theirs: Sequence[str], ours: Sequence[str], where: str, spellings: Sequence[Spelling]) -> list[int | None]:
    found: list[int | None] = [None] * len(theirs)
    for spelling in (str, *spellings):
        known = defaultdict(list)
        for index, name in enumerate(ours):
            known[spelling(name)].append(index)
        for i, name in enumerate(theirs):
            same = known.get(spelling(name), []) if found[i] is None else []
            if len(same) > 1:
                raise DataError(f"{where} has {name!r}, which is like {_said([ours[index] for index in same])}")
            found[i] = same[0] if same else found[i]
    return found


def require_match(theirs: Sequence[str], ours: Sequence[str], where: str, whose: str) -> list[int]:
    """``match``, where each of their names must be one of ours.

    Raises:
        DataError: some are not.
    """
    found = match(theirs, ours, where)
    if unknown := [name for name, index in zip(theirs, found, strict=True) if index is None]:
        near = difflib.get_close_matches(plain(unknown[0]), [plain(name) for name in ours], 1)
        meant = next((f" (did you mean {name!r}?)" for name in ours if near and plain(name) == near[0]), "")
        raise DataError(f"{where} has classes that {whose} does not have: {_said(unknown[:5])}{meant}")
    return found


def require_different(names: Sequence[str], where: str) -> None:
    """Raises DataError: two names look the same, such as one with an accent written in another way."""
    seen = {}
    for name in names:
        if (other := seen.setdefault(composed(name), name)) != name:
            raise DataError(f"{where} has {other!a} and {name!a}, which look alike: make them one")


def _said(names: Sequence[str]) -> str:
    """Names with quotes, so that spaces at their ends are seen."""
    return ", ".join(map(repr, names))
