"""Work on several threads, with results in order and a bounded lead."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import torch


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that use one core each: torch's own threads inside them would only compete."""
    workers = max(1, workers)
    before, ready = torch.get_num_threads(), Barrier(workers + 1)

    def start() -> None:
        torch.set_num_threads(1)
        ready.wait()

    with ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            pool.submit(start)
        ready.wait()
        torch.set_num_threads(before)  # their setting would also apply to threads started later
        yield pool


def in_order(pool: ThreadPoolExecutor, work: Callable, items: Sequence, ahead: int, chunk: int = 1) -> Iterator:
    """``map(work, items)``, with ``ahead`` chunks of ``chunk`` items in progress while earlier results are used."""
    waiting = deque()
    for at in range(0, len(items), chunk):
        some = items[at : at + chunk]
        waiting.append(pool.submit(lambda some=some: [work(item) for item in some]))
        if len(waiting) > ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()
