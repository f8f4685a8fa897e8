"""Every config key with all its facts and the comment above it: for documentation and completion."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace

from .catalogue import catalogue, method_classes
from .keys import Key

ASSIGNED = re.compile(r"cfg\.([A-Z][A-Z0-9_.]*) = ")


def all_keys() -> dict[str, Key]:
    """Every key of the tree and of every method, by name, in the order in which a config shows them.

    Without torch where it is not loaded and the user's cache folder has the keys.
    """
    keys = catalogue().keys
    if any(key.comment for key in keys.values()):
        return keys
    comments = read_comments()
    return {name: replace(key, comment=comments.get(name, "")) for name, key in keys.items()}


def read_comments() -> dict[str, str]:
    """The comment above every key, from the source; imports torch. What a method says of a key it shares comes last."""
    from .methods import config_name
    from .tree import tree

    comments = comments_in(tree)
    for method, kind in method_classes().items():
        for base in reversed(kind.__mro__):
            if "defaults" in vars(base):
                for key, comment in comments_in(base.defaults).items():
                    name = f"MODEL.{config_name(method)}.{key}"
                    comments[name] = " ".join(filter(None, [comments.get(name), comment]))
    return comments


def comments_in(function: Callable) -> dict[str, str]:
    """The comments above the keys that a function declares, each in one line: ``{"SOLVER.MOMENTUM": "..."}``."""
    try:
        lines = inspect.getsource(function).splitlines()
    except OSError:  # defined where there is no file
        return {}
    comments, above = {}, []
    for line in map(str.strip, lines):
        if line.startswith("#"):
            above.append(line.removeprefix("#").strip())
            continue
        if match := ASSIGNED.match(line):
            comments[match[1]] = " ".join(above)
        above = []
    return comments
