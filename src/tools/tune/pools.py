"""Where the runs of a sweep are done: in this process, or in several on this machine. Each process does many runs."""

import gc
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Protocol

import torch

from ...engine.shared import Shared
from ...utils.logging import setup_logging
from ...utils.signals import REQUEUE, Interrupted
from .execute import Job, Outcome, execute
from .plan import Run

PATIENCE = 120.0  # seconds for a process to finish its step and save


class Place(Protocol):
    """A process that does one run at a time.

    Attributes:
        run: the current run.
        alike: images and backbone of the last run.
    """

    run: Run | None
    alike: tuple

    def start(self, run: Run, job: Job) -> None: ...


class SameProcess:
    """This process, as a pool of one place."""

    def __init__(self):
        self.places: list[Place] = [self]
        self.run = None
        self.alike = ()
        self._shared = Shared()
        gc.freeze()

    def start(self, run: Run, job: Job) -> None:
        self.run = run
        self.alike = run.alike
        self._job = job

    def wait(self) -> list[tuple[Run, Outcome | None]]:
        """Wait for runs to end, at least one; the outcome is None if the process died."""
        run, self.run = self.run, None
        outcome = execute(self._job, self._shared)
        gc.collect()
        return [(run, outcome)]

    def stop(self) -> None:
        """End all processes; current runs save their state."""


class Workers:
    """Processes on this machine, spread over its GPUs, with an equal share of its cores."""

    def __init__(self, count: int):
        self.places: list[Place] = [_Worker(i, count) for i in range(count)]

    def wait(self) -> list[tuple[Run, Outcome | None]]:
        busy = [worker for worker in self.places if worker.run]
        wait([thing for worker in busy for thing in (worker.connection, worker.process.sentinel)])
        return [ended for worker in busy if (ended := worker.look())]

    def stop(self) -> None:
        for worker in self.places:
            worker.process.terminate()
            worker.connection.close()  # a run that was at its end when the signal came ends, and the process reads on
        deadline = time.monotonic() + PATIENCE
        for worker in self.places:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()


class _Worker:
    """One process, replaced by a new one when it dies."""

    def __init__(self, number: int, count: int):
        self._environment = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        if gpus := _gpus():
            self._environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        self._begin()

    def _begin(self) -> None:
        self.run = None
        self.alike = ()
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ |= self._environment  # must be set before libraries are loaded
        try:
            self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self.process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()

    def start(self, run: Run, job: Job) -> None:
        self.run = run
        self.alike = run.alike
        with suppress(OSError):  # it died while waiting: ``look`` will notice
            self.connection.send(job)

    def look(self) -> tuple[Run, Outcome | None] | None:
        """The run that ended, if any."""
        run, outcome = self.run, None
        try:
            if self.connection.poll():
                outcome = self.connection.recv()
            elif self.process.is_alive():
                return None
        except (EOFError, OSError):
            pass  # the process died
        self.run = None
        if outcome is None or outcome.unexpected:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self._begin()
        return run, outcome


def _serve(connection: Connection) -> None:
    """Do the jobs from ``connection`` until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process between runs
    setup_logging(terminal=False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    shared = Shared()
    gc.freeze()
    while True:
        try:
            connection.send(execute(connection.recv(), shared))
        except (EOFError, OSError):
            return
        except Interrupted:
            os._exit(REQUEUE)
        gc.collect()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _gpus() -> list[str]:
    """Names of the GPUs, in the form of CUDA_VISIBLE_DEVICES."""
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return chosen.split(",")
    return [str(i) for i in range(torch.cuda.device_count())]
