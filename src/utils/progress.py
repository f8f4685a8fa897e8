"""Progress bars; of several processes, only one shows them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm as _tqdm

from .launch import expected_rank

_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden_bars(hide: bool = True) -> Iterator[None]:
    """No bars inside, for what reports its progress in lines."""
    token = _hidden.set(hide)
    try:
        yield
    finally:
        _hidden.reset(token)


class tqdm(_tqdm):
    """tqdm, silent in all processes but rank 0."""

    def __init__(self, *args, **settings):
        # Otherwise TQDM_DISABLE applies, as always.
        silent = _hidden.get() or expected_rank() > 0
        super().__init__(*args, **({"disable": True} if silent else {}) | settings)
