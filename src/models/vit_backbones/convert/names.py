"""Changes of a state dict's names."""

from collections.abc import Mapping

from ..tensors import StateDict


def strip(state: StateDict, prefix: str, only: bool = False) -> StateDict:
    """Names without ``prefix``; those that do not have it stay, or go if ``only``."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) or not only}


def drop(state: StateDict, *prefixes: str) -> StateDict:
    """Those whose names do not start with a prefix."""
    return {k: v for k, v in state.items() if not k.startswith(prefixes)}


def replaced(name: str, names: Mapping[str, str]) -> str:
    """A name with parts replaced, one after the other."""
    for theirs, ours in names.items():
        name = name.replace(theirs, ours)
    return name
