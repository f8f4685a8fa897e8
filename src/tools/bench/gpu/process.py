"""A part in a process of its own, so that neither a crash nor an endless wait ends the others.

The processes are forked from one that has imported torch and this package, and has not touched the GPU.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from .finding import FAILED, NOTE, Finding, LeftOut, Room, failure

FINDINGS, LOG, SECONDS = "findings.jsonl", "log.txt", "seconds.txt"


class Running:
    """A part that has been started.

    Args:
        folder: the part's own, new.
        seconds: after which it is ended.
    """

    def __init__(self, name: str, room: dict, folder: Path, seconds: float):
        self.name, self.folder, self.seconds = name, folder, seconds
        self.started = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"{__package__}.parts.{name}" for name in ("smoke", "step", "runs")])
        self.process = context.Process(target=_do, args=(name, room, folder, seconds))
        self.process.start()

    def finish(self) -> dict:
        """Wait for its end, or end it; its findings and how it ended."""
        self.process.join(max(0.0, self.seconds - (time.monotonic() - self.started)))
        late = self.process.is_alive()
        self.end()
        seconds, findings = time.monotonic() - self.started, self._findings()
        if (file := self.folder / SECONDS).exists():  # it may have ended while another part was waited for
            seconds = float(file.read_text())
        if late:
            findings.append(
                Finding("the rest", f"ended after {seconds:.0f} s, its limit", NOTE if findings else FAILED)
            )
        elif self.process.exitcode:
            text = f"the process died with status {self.process.exitcode}; see {self.folder / LOG}"
            findings.append(Finding("the rest", text, FAILED))
        return {"seconds": seconds, "findings": [asdict(finding) for finding in findings]}

    def end(self) -> None:
        """End it and what it has started, if it still runs."""
        if self.process.is_alive():
            with suppress(ProcessLookupError):  # it has only begun, and leads no group yet
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
            self.process.join()

    def _findings(self) -> list[Finding]:
        path = self.folder / FINDINGS
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one may be half of one
        return [Finding(**json.loads(line)) for line in lines]


def _do(name: str, room: dict, folder: Path, seconds: float) -> None:
    """Write what the part finds, as it finds it."""
    start = time.monotonic()
    os.setsid()  # so that its own children can be ended with it
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    with open(folder / FINDINGS, "a", encoding="utf-8") as file:
        for finding in _found(name, Room(**room, folder=folder, until=start + seconds - 2)):
            file.write(json.dumps(asdict(finding)) + "\n")
            file.flush()
    (folder / SECONDS).write_text(str(time.monotonic() - start))


def _found(name: str, room: Room) -> Iterator[Finding]:
    try:
        yield from import_module(f"{__package__}.parts.{name}").run(room)
    except LeftOut as reason:
        yield Finding("left out", str(reason))
    except Exception as error:  # whatever goes wrong is a finding, and the other parts go on
        yield failure("the rest", error)
