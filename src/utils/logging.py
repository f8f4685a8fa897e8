"""Log lines that do not break the progress bar, on the terminal and in the run's log.txt."""

import logging
import sys
from pathlib import Path

from .launch import expected_rank
from .progress import tqdm


class _AboveBar(logging.Handler):
    """Prints each record above whatever progress bar is running.

    Args:
        only: records of loggers below this name, and errors of all; "" prints everything.
        stderr: print them there, where stdout has the results themselves.
    """

    def __init__(self, only: str = "", stderr: bool = False):
        super().__init__()
        self.only, self.stderr = only, stderr
        self.addFilter(lambda record: record.name.startswith(self.only) or record.levelno >= logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr if self.stderr else sys.stdout)


def setup_logging(level: int = logging.INFO, terminal: bool = True, only: str = "", stderr: bool = False) -> None:
    """Log to the terminal; call once per process. Of several that train together only the first talks.

    Args:
        terminal: False where nothing is printed, and only log files get the lines.
        only: whose lines are printed, where many runs would print too many: those of loggers below this name.
        stderr: print there, where stdout has the results themselves.
    """
    if expected_rank() > 0:
        level = logging.ERROR
    root = logging.getLogger()
    if not terminal:
        root.addHandler(logging.NullHandler())
    elif known := [handler for handler in root.handlers if isinstance(handler, _AboveBar)]:
        known[0].only, known[0].stderr = only, stderr
    else:
        handler = _AboveBar(only, stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    root.setLevel(level)
    for name in ("absl", "onnx_ir", "onnxscript"):  # they tell of every file that is opened, of every constant
        logging.getLogger(name).setLevel(logging.WARNING)


class _File(logging.FileHandler):
    """A log file that may fail: the terminal has the lines too, and a full disk ends a run where it matters."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class LogFile:
    """``with LogFile(path):`` everything logged inside also goes to this file, with times."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        self.handler = _File(self.path, encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(self.handler)

    def __exit__(self, *error) -> None:
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()
