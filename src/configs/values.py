"""Values of keys as people write them: what a text or a YAML value means for a key of a given type."""

import difflib
from collections.abc import Iterable
from typing import Any

from ..utils.yaml import read_value

# The last part of a key whose value is another library's arguments: their names are not keys of ours.
ARGUMENTS = "KWARGS"

# What else is read as True and False where a key takes one of these (YAML 1.1).
WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def flatten(cfg: dict, prefix: str = "") -> dict[str, Any]:
    """``{"A": {"B": 1}}`` -> ``{"A.B": 1}``, keys in their order."""
    flat = {}
    for key, value in cfg.items():
        is_node = isinstance(value, dict) and key != ARGUMENTS
        flat |= flatten(value, f"{prefix}{key}.") if is_node else {f"{prefix}{key}": value}
    return flat


def convert(value: Any, default: Any) -> Any:
    """``value`` (from YAML, or text from the command line) as the type of ``default``; None means the default."""
    if isinstance(default, str):
        if value in (None, "None", "null"):
            return default
        if isinstance(value, (list, dict, bool)):
            raise TypeError
        return str(value)
    if isinstance(value, str):
        value = parse_value(value, default)
    if isinstance(default, bool | dict):
        value = _without_words(value)
    if value is None:
        return default
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, list) and isinstance(value, tuple):
        return list(value)
    if isinstance(default, dict) and isinstance(value, dict):
        from fvcore.common.config import CfgNode  # here: command lines work without it

        return CfgNode(value)
    if type(value) is not type(default):
        raise TypeError
    return value


def parse_value(text: str, default: Any) -> Any:
    """Text from the command line as Python or YAML would read it; "a,b" is a list where one is wanted."""
    value = read_value(text)
    if isinstance(default, list) and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


def _without_words(value: Any) -> Any:
    """``value`` with yes, no, on and off as what they mean."""
    if isinstance(value, dict):
        return {key: _without_words(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_words(part) for part in value]
    return WORDS.get(value.lower(), value) if isinstance(value, str) else value


def shown(value: Any) -> str:
    """A value as a message quotes it, cut where it is very long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def describe(default: Any) -> str:
    if isinstance(default, dict):
        return "arguments and their values, such as {'r': 8}"
    kind = {bool: "True or False", int: "a whole number", float: "a number", list: "a list", str: "text"}[type(default)]
    return f"{kind}, such as {default!r}"


def nearest(key: str, names: Iterable[str]) -> list[str]:
    """The ones of ``names`` that someone who wrote ``key`` may have meant, at most three."""
    by_last = [k for k in names if k.split(".")[-1] == key.split(".")[-1]]
    near = [*by_last, *difflib.get_close_matches(key, names, n=3, cutoff=0.6)]
    if not near:
        ends = {k.split(".")[-1]: k for k in names}
        near = [ends[end] for end in difflib.get_close_matches(key.split(".")[-1], ends, n=3, cutoff=0.6)]
    return list(dict.fromkeys(near[:3]))
