"""The table of config keys."""

from ...configs.keys import Key
from ...configs.reference import all_keys
from ...utils.table import Table


def keys_table(word: str = "") -> Table:
    """Every key with its default, the values that it may have, and what it means.

    Args:
        word: only keys with it in their name or comment, whatever the case.

    Raises:
        ValueError: there are none.
    """
    rows = []
    for name, key in all_keys().items():
        if word.lower() in f"{name} {key.comment}".lower():
            rows.append((name, repr(key.default), key.comment, _values(key)))
    if not rows:
        raise ValueError(f"no config key has {word!r} in its name or comment; vitune list keys shows all of them")
    return Table(("key", "default", "meaning", "values"), rows, "llll", below={"meaning": "", "values": "values: "})


def _values(key: Key) -> str:
    if key.choices or key.form:
        return key.form or ", ".join(str(choice) or '""' for choice in key.choices)
    bounds = "" if key.low is None and key.high is None else key.range
    return " ".join(filter(None, [bounds, key.unit and f"({key.unit})"]))
