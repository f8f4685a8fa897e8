"""Log lines that do not break the progress bar, on the terminal and in the run's log.txt."""

import logging
import sys
from pathlib import Path

from .launch import expected_rank
from .progress import tqdm


class _AboveBar(logging.Handler):
    """Prints each record above the running progress bar.

    Args:
        only: print only records of loggers below this name, and all errors; "" prints everything.
        stderr: print to stderr, because results go to stdout.
    """

    def __init__(self, only: str = "", stderr: bool = False):
        super().__init__()
        self.only = only
        self.stderr = stderr
        self.addFilter(lambda record: record.name.startswith(self.only) or record.levelno >= logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr if self.stderr else sys.stdout)


def setup_logging(level: int = logging.INFO, terminal: bool = True, only: str = "", stderr: bool = False) -> None:
    """Log to the terminal; call once per process. With several processes, only rank 0 logs.

    Args:
        level: of the lines on the terminal; log files get all from INFO on.
        terminal: False prints nothing; only log files get the lines.
        only: print only lines of loggers below this name, as many runs would print too many.
        stderr: print to stderr, because results go to stdout.
    """
    root = logging.getLogger()
    root.setLevel(logging.ERROR if expected_rank() > 0 else logging.INFO)
    if not terminal:
        root.addHandler(logging.NullHandler())
    elif handlers := [handler for handler in root.handlers if isinstance(handler, _AboveBar)]:
        handlers[0].only = only
        handlers[0].stderr = stderr
        handlers[0].setLevel(level)
    else:
        handler = _AboveBar(only, stderr)
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    for name in ("absl", "onnx_ir", "onnxscript"):  # they log every opened file and every constant
        logging.getLogger(name).setLevel(logging.WARNING)


class _File(logging.FileHandler):
    """A log file whose errors are ignored: the terminal has the lines too, and a full disk ends a run elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class LogFile:
    """``with LogFile(path):`` also writes everything logged inside to this file, with times."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        self.handler = _File(self.path, encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(self.handler)

    def __exit__(self, *error) -> None:
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()
