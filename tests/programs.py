"""Programs that are started as from a shell, without the seconds that each would take to import torch.

Each is a process of its own, with its own arguments, environment, signals, output and exit status. It is forked from a
server that has imported the libraries already. The one difference from a shell: ``atexit`` handlers are not run.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import weakref
from pathlib import Path

from paths import ROOT
from scratch import scratch_file

FORKS = multiprocessing.get_context("forkserver")
# What a run of train.py imports, in part while it runs; what is missing here is left out.
LIBRARIES = [
    "src.engine.run",
    "torch.utils.tensorboard",
    "sklearn.datasets",
    "fvcore.nn",
    "cv2",
    "torch.distributed.fsdp",
]
FORKS.set_forkserver_preload(["collecting", *LIBRARIES, "programs"])


class Program:
    """``python *args`` for a script, ``-m module`` or ``-c code``, with the interface of ``subprocess.Popen``.

    Args:
        output: a file for what it writes to stdout and to stderr, in the order in which it does.
    """

    def __init__(self, *args, cwd: Path = ROOT, env: dict[str, str] | None = None, output: Path | None = None):
        self.args = [str(arg) for arg in args]
        self._outputs = [output, output] if output else [scratch_file("stdout"), scratch_file("stderr")]
        environment = dict(os.environ if env is None else env)
        self._process = FORKS.Process(target=_become, args=(self.args, str(cwd), environment, self._outputs))
        self._process.start()
        weakref.finalize(self, self._process.kill)  # a test that fails leaves nothing running
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it has ended; what it wrote to stdout and to stderr."""
        self.wait(timeout)
        return tuple(path.read_text() for path in self._outputs)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run_program(*args, timeout: float = 300, **settings) -> subprocess.CompletedProcess:
    """Start the program and wait for its end, which comes after ``timeout`` seconds if not before."""
    program = Program(*args, **settings)
    try:
        output = program.communicate(timeout)
    except subprocess.TimeoutExpired:
        program.kill()
        raise
    return subprocess.CompletedProcess(program.args, program.returncode, *output)


def _become(args: list[str], cwd: str, environment: dict[str, str], outputs: list[Path]) -> None:
    """In the new process: do what ``python *args`` does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
    if args[0] == "-m":
        sys.argv = args[1:]
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    elif args[0] == "-c":
        sys.argv = ["-c", *args[2:]]
        exec(args[1], {"__name__": "__main__"})
    else:
        sys.argv = args
        runpy.run_path(args[0], run_name="__main__")
