"""A folder for files that live as long as the tests run."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def scratch_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="vitune-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def scratch_file(name: str) -> Path:
    """A new path in it, in a folder of its own."""
    return Path(tempfile.mkdtemp(dir=scratch_folder())) / name
