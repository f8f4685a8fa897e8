"""Signals that ask a run to stop: at once where nothing is lost, else after the step that is under way."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Exit status of a run that was asked to stop and can go on: EX_TEMPFAIL of sysexits.h, "try again later".
REQUEUE = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # Slurm's --signal is often told to send the last


class StoppedEarly(Exception):
    """The caller that watches a run has seen enough of it."""


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to stop; the message names it."""


class StopSignals:
    """What the process does on SIGTERM, SIGINT and SIGUSR1 while inside ``with StopSignals() as stop``.

    ``Interrupted`` is raised at once, or, inside ``with stop.deferred()``, only ``stop.asked`` tells of it; a second
    SIGINT does not wait. That holds for signals, too, that were ignored before, as SIGINT is by what a script starts in
    the background. Outside the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self):
        self.asked = ""  # the signal's name
        self._defer = False
        self._before = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # None: it was not Python that had set it, and Python cannot put it back
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._defer = True
        try:
            yield
        finally:
            self._defer = False

    def _heard(self, number: int, frame) -> None:
        insists = bool(self.asked) and number == signal.SIGINT
        self.asked = signal.Signals(number).name
        if insists or not self._defer:
            raise Interrupted(self.asked)


def stoppable(work: Callable[[], int]) -> int:
    """The exit status of ``work``; REQUEUE, with a line on stderr, where a signal asked it to stop."""
    try:
        with StopSignals():
            return work()
    except Interrupted as stopped:
        print(f"stopped by {stopped}; the same command goes on from there", file=sys.stderr)  # noqa: T201
        return REQUEUE
