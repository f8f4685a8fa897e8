"""Signals that stop a run: immediately where nothing is lost, otherwise after the current step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Exit status of a stopped run that can be resumed: EX_TEMPFAIL of sysexits.h, "try again later".
REQUEUE = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # Slurm's --signal often sends the last


class StoppedEarly(Exception):
    """The watcher of a run ended it."""


class Interrupted(KeyboardInterrupt):
    """A signal told this process to stop; the message names it."""


class StopSignals:
    """What the process does on SIGTERM, SIGINT and SIGUSR1 while inside ``with StopSignals() as stop``.

    ``Interrupted`` is raised at once; inside ``with stop.deferred()``, only ``stop.received`` is set, and a second
    SIGINT raises. This includes signals that were ignored before, as SIGINT is in a script's background jobs. Outside
    the main thread, where Python allows no handlers, nothing changes.
    """

    def __init__(self):
        self.received = ""  # the signal's name
        self._defer = False
        self._before = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # None: not set by Python, which cannot restore it
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._defer = True
        try:
            yield
        finally:
            self._defer = False

    def _handle(self, number: int, frame) -> None:
        insists = bool(self.received) and number == signal.SIGINT
        self.received = signal.Signals(number).name
        if insists or not self._defer:
            raise Interrupted(self.received)
