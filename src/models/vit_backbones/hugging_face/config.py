"""config.json of a transformers checkpoint: untrusted values, each checked where it is asked for."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Values:
    """The values of a JSON object by name; what it leaves out is as transformers has it by default.

    Every method raises ValueError, naming file and key, unless the value is what it asks for.
    """

    def __init__(self, path: Path, content: Any, defaults: Mapping[str, Any]):
        if not isinstance(content, dict):
            raise ValueError(f"{path} is broken: it, or its vision_config, is not a JSON object")
        self.path, self.content = path, {**defaults, **content}

    def refuse(self, key: str, wanted: str) -> ValueError:
        """The error for a value that cannot be used."""
        return ValueError(f"{self.path}: {key} is {_short(self.content.get(key))}, {wanted}")

    def whole(self, key: str, least: int, most: int) -> int:
        """A whole number."""
        value = self.content.get(key)
        if not _is_whole(value) or not least <= value <= most:
            raise self.refuse(key, f"not a whole number from {least} to {most:,}")
        return value

    def number(self, key: str, above: float, most: float) -> float:
        """A number above ``above``, up to ``most``."""
        value = self.content.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= most:
            raise self.refuse(key, f"not a number above {above:g}, up to {most:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        """true or false."""
        if not isinstance(value := self.content.get(key), bool):
            raise self.refuse(key, "neither true nor false")
        return value

    def choice(self, key: str, names: Mapping[str, str]) -> str:
        """What ``names`` says for the word that the key has."""
        if not isinstance(value := self.content.get(key), str) or value not in names:
            raise self.refuse(key, f"not one of {', '.join(names)}")
        return names[value]

    def must_be(self, key: str, value: Any, why: str) -> None:
        """Refuse any other value of a key."""
        if self.content.get(key, value) != value:
            raise self.refuse(key, f"not {_short(value)}: {why}")

    def sides(self, key: str, most: int) -> tuple[int, int]:
        """Height and width: one number, or two."""
        value = self.content.get(key)
        sides = value if isinstance(value, list) else [value, value]
        if len(sides) != 2 or not all(_is_whole(side) and 1 <= side <= most for side in sides):
            raise self.refuse(key, f"not one or two whole numbers from 1 to {most:,}")
        return tuple(sides)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def ratio(part: int, whole: int) -> float:
    """A number r with int(whole * r) == part, as timm computes the width of a hidden layer."""
    quotient = part / whole
    return quotient if int(whole * quotient) == part else math.nextafter(quotient, math.inf)
