"""Declaring a config key once: its default and everything else that is true of it.

    # Momentum of sgd.
    cfg.SOLVER.MOMENTUM = number(0.9, low=0, high=1)

A ``Section`` stores the plain default, so that it is used like any config node, and keeps the facts beside it. Checks,
the hash in a run folder's name, reports and the reference of all keys are derived from them.
"""

import copy
import difflib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from fvcore.common.config import CfgNode

from .values import ARGUMENTS, shown

# What a key is part of: the experiment; one task, so that it means nothing for another data set; the choice among that
# task's images; or the machine (where things are, and how fast), which is not part of the experiment.
EXPERIMENT, TASK, SAMPLE, MACHINE = ROLES = ("experiment", "task", "sample", "machine")


@dataclass(frozen=True)
class Key:
    """Everything that is true of one config key.

    Attributes:
        choices: the values it may have; of a list, its members. Empty: any.
        low, high: lowest and highest number; of a list, of its members. None: no bound.
        low_open, high_open: the bound itself is not allowed.
        also: values outside of that range that mean something, such as -1 for "as the task says".
        members: of a list: "whole" where they must be whole numbers, "real" for any numbers.
        lengths: how many members a list may have; empty: any number.
        filled: a list may not be empty.
        distinct: no member may occur twice.
        form: a right value in words, such as "[height, width] in pixels, or []", where they say more than the range.
        is_path: it names a file or folder, so that "~" in it is the home folder.
        name: such as "SOLVER.MOMENTUM"; "" while it is declared.
        comment: what stands above it in the source.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    also: tuple[Any, ...] = ()
    members: str = ""
    lengths: tuple[int, ...] = ()
    filled: bool = False
    distinct: bool = False
    form: str = ""
    is_path: bool = False
    unit: str = ""
    role: str = EXPERIMENT
    name: str = ""
    comment: str = ""

    def problem(self, value: Any, name: str = "") -> str:
        """What is wrong with ``value``, which has the type of the default, in one sentence; "" if nothing is."""
        wrong = self._wrong_list(value) if isinstance(value, list) else self._wrong(value)
        if wrong and self.form:
            wrong = f"it must be {self.form}"
        return f"{name or self.name} is {shown(value)}; {wrong}" if wrong else ""

    def _wrong(self, value: Any) -> str:
        if value in self.also:
            return ""
        if self.choices:
            return "" if value in self.choices else f"known: {', '.join(map(repr, self.choices))}{self._nearest(value)}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return ""
        below = self.low is not None and (value <= self.low if self.low_open else value < self.low)
        above = self.high is not None and (value >= self.high if self.high_open else value > self.high)
        return f"it must be {self.range}" if below or above or not math.isfinite(value) else ""

    def _nearest(self, value: Any) -> str:
        names = [str(choice) for choice in self.choices if choice]
        near = difflib.get_close_matches(str(value).lower(), names, n=1)
        return f"; did you mean {near[0]!r}?" if near else ""

    def _wrong_list(self, values: list) -> str:
        if self.choices and (unknown := [value for value in values if value not in self.choices]):
            return f"known: {', '.join(map(repr, self.choices))}, but not {shown(unknown)[1:-1]}"
        if self.filled and not values:
            from_these = f"; choose from {', '.join(map(repr, self.choices))}" if self.choices else ""
            return f"it must not be empty{from_these}"
        if self.lengths and len(values) not in self.lengths:
            return f"it must have {' or '.join(map(str, self.lengths))} members"
        if twice := [value for value, count in Counter(map(repr, values)).items() if self.distinct and count > 1]:
            return f"it has {', '.join(twice)} twice"
        return next((wrong for value in values if (wrong := self._wrong_member(value))), "")

    def _wrong_member(self, value: Any) -> str:
        if not self.members:
            return ""
        kind = "whole numbers" if self.members == "whole" else "numbers"
        is_number = isinstance(value, int if self.members == "whole" else int | float) and not isinstance(value, bool)
        if is_number and not self._wrong(value):
            return ""
        return f"its members must be {kind}" + (f", each {self.range}" if self.low is not None else "")

    @property
    def range(self) -> str:
        """The range of numbers in words: "more than 0 and at most 1, or -1"."""
        if self.low is not None and self.high is not None and not (self.low_open or self.high_open):
            text = f"from {self.low} to {self.high}"
        else:
            low = [] if self.low is None else [f"{'more than' if self.low_open else 'at least'} {self.low}"]
            high = [] if self.high is None else [f"{'less than' if self.high_open else 'at most'} {self.high}"]
            text = " and ".join([*low, *high]) or "a finite number"
        return ", or ".join([text, *map(repr, self.also)])

    def value(self) -> Any:
        """The default, as a value of its own."""
        return CfgNode(self.default) if isinstance(self.default, dict) else copy.copy(self.default)


def number(default: float, **facts: Any) -> Key:
    """A finite number. ``low`` and ``high`` are allowed themselves, ``above`` and ``below`` are not."""
    return _bounded(float(default), **facts)


def whole(default: int, **facts: Any) -> Key:
    """A whole number; bounds as in ``number``."""
    return _bounded(default, **facts)


def _bounded(default: Any, above: float | None = None, below: float | None = None, **facts: Any) -> Key:
    if above is not None:
        facts |= {"low": above, "low_open": True}
    if below is not None:
        facts |= {"high": below, "high_open": True}
    return Key(default, **facts)


def flag(default: bool, **facts: Any) -> Key:
    """True or False."""
    return Key(default, **facts)


def text(default: str = "", **facts: Any) -> Key:
    """Any text."""
    return Key(default, **facts)


def location(default: str = "", **facts: Any) -> Key:
    """The name of a file or folder."""
    return Key(default, is_path=True, **facts)


def one_of(default: str, choices: Iterable[str], **facts: Any) -> Key:
    """One of the names in ``choices``, best the dictionary in which they are looked up."""
    return Key(default, choices=tuple(choices), **facts)


def some_of(default: list[str], choices: Iterable[str] = (), **facts: Any) -> Key:
    """A list of names: of ``choices``, or any."""
    return Key(default, choices=tuple(choices), **facts)


def numbers(default: list[float], **facts: Any) -> Key:
    """A list of numbers; bounds as in ``number``."""
    return _bounded(default, members="real", **facts)


def wholes(default: list[int], **facts: Any) -> Key:
    """A list of whole numbers; bounds as in ``number``."""
    return _bounded(default, members="whole", **facts)


def arguments() -> Key:
    """Arguments of another library by their names, for a key called ARGUMENTS."""
    return Key({})


class Section(CfgNode):
    """A config node whose keys are declared by assigning a ``Key``; a plain value changes the default of one."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.__dict__["facts"] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Key):
            self.facts[name] = value
            value = value.value()
        super().__setattr__(name, value)


def declared(section: CfgNode, prefix: str = "") -> dict[str, Key]:
    """Every key of a section and those below it, by its full name, in the order of declaration.

    A key that was assigned a plain value has that default and any value of its type.
    """
    keys, facts = {}, getattr(section, "facts", {})
    for name, value in section.items():
        if isinstance(value, CfgNode) and name != ARGUMENTS:
            keys |= declared(value, f"{prefix}{name}.")
        else:
            key = facts.get(name, Key(value))
            default = {} if isinstance(key.default, dict) else value
            keys[f"{prefix}{name}"] = replace(key, default=default, name=f"{prefix}{name}")
    return keys


def tree_of(keys: Iterable[Key]) -> CfgNode:
    """The config with every key at its default."""
    cfg = CfgNode()
    for key in keys:
        node = cfg
        *sections, last = key.name.split(".")
        for section in sections:
            if section not in node:
                node[section] = CfgNode()
            node = node[section]
        node[last] = key.value()
    return cfg
