"""A config under construction: it takes one setting after another, and remembers what is wrong with each."""

import functools
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from ..utils.paths import expand
from .catalogue import catalogue
from .keys import Key, tree_of
from .values import convert, describe, nearest, parse_value, shown


class Draft:
    """Every key at its default, and then as it is set. A key whose value is wrong stays at its default.

    Attributes:
        cfg: the config so far.
        meant: keys that were probably meant by names that are not keys.
    """

    def __init__(self) -> None:
        self.keys = catalogue().keys
        self.cfg = tree_of(self.keys.values())
        self.meant: set[str] = set()
        self._was_set: set[str] = set()
        self._wrong: dict[str, str] = {}  # a key, or what is taken for one -> what is wrong with its last value

    @property
    def problems(self) -> list[str]:
        """One sentence for each setting that is wrong."""
        return list(self._wrong.values())

    @property
    def unsettled(self) -> set[str]:
        """Keys whose values are not what they were meant to be: what follows from these values means nothing."""
        return self._wrong.keys() | (self.meant - self._was_set)

    def set(self, name: str, value: Any, where: str) -> None:
        """Set one key, converting ``value`` to the type of its default."""
        if value is None and any(other.startswith(f"{name}.") for other in self.keys):  # an empty section
            return
        self._wrong.pop(name, None)
        if name in self.keys:
            self._was_set.add(name)
            self._set(self.keys[name], value, where)
            return
        node, _, last = name.rpartition(".")
        if node in self.keys and isinstance(self.keys[node].default, dict):  # KWARGS.r 8
            value = parse_value(value, {}) if isinstance(value, str) else value
            self.set(node, {**self._at(node), last: value}, where)
            return
        near = nearest(name, self.keys)
        self.meant |= set(near)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        self._wrong[name] = f"unknown key {name} in {where}{meant}"

    def _set(self, key: Key, value: Any, where: str) -> None:
        if (value is False or value in ("False", "false")) and "off" in key.choices:
            value = "off"
        try:
            value = convert(value, key.default)
        except (TypeError, ValueError, yaml.YAMLError) as error:
            why = f" ({error})" if isinstance(error, yaml.YAMLError) else ""
            self._wrong[key.name] = f"{key.name} in {where} is {shown(value)}{why}; it must be {describe(key.default)}"
            return
        try:
            value = expand(value) if key.is_path else value
        except ValueError as error:
            self._wrong[key.name] = f"{key.name} in {where} is {error}"
            return
        if problem := key.problem(value):
            self._wrong[key.name] = problem
            return
        node, _, last = key.name.rpartition(".")
        self._at(node)[last] = value

    def _at(self, name: str) -> CfgNode:
        """The section ``name``, "" for all of it."""
        return functools.reduce(lambda node, part: node[part], name.split(".") if name else (), self.cfg)
