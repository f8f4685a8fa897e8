"""Work for several threads, in order and never far ahead."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import torch


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each use one core: torch's own threads inside them would only get in each other's way."""
    workers = max(1, workers)
    before, ready = torch.get_num_threads(), Barrier(workers + 1)

    def start() -> None:
        torch.set_num_threads(1)
        ready.wait()

    with ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            pool.submit(start)
        ready.wait()
        torch.set_num_threads(before)  # what those threads set would also hold for threads that start later
        yield pool


def in_order(pool: ThreadPoolExecutor, work: Callable, items: Sequence, ahead: int, chunk: int = 1) -> Iterator:
    """``map(work, items)``, with ``ahead`` pieces of ``chunk`` items under way while earlier results are used."""
    waiting = deque()
    for at in range(0, len(items), chunk):
        some = items[at : at + chunk]
        waiting.append(pool.submit(lambda some=some: [work(item) for item in some]))
        if len(waiting) > ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()
