"""What is computed once for several runs: facts about a model as it starts, and networks made of its modules."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """What earlier runs computed for a model. A new memo is empty, so that everything is computed.

    Args:
        facts: of every model that starts with the same values: sizes, hashes of frozen weights, where the frozen prefix
            ends. Nothing in them may depend on what a run learned.
        networks: made of this very model.
    """

    def __init__(self, facts: dict[Hashable, Any] | None = None, networks: dict[Hashable, Any] | None = None):
        self._facts = {} if facts is None else facts
        self._networks = {} if networks is None else networks

    def fact(self, name: Hashable, compute: Callable[[], T]) -> T:
        """``compute()``, or what it gave before for a model that started as this one does."""
        if name not in self._facts:
            self._facts[name] = compute()
        return self._facts[name]

    def network(self, name: Hashable, make: Callable[[], T]) -> T:
        """``make()``, a network made of this model's own modules; the same one every time."""
        if name not in self._networks:
            self._networks[name] = make()
        return self._networks[name]
