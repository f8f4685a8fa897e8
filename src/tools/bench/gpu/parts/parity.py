"""The tests that compare with numbers of the original code, on this device."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..finding import Finding, LeftOut, Room, checked

CHECKOUT = Path(__file__).parents[5]


def run(room: Room) -> Iterator[Finding]:
    if not (CHECKOUT / "tests" / "test_parity.py").is_file():
        raise LeftOut("needs the tests, which are in a checkout only")
    if importlib.util.find_spec("pytest") is None:
        raise LeftOut("needs pytest, which this Python does not have: pip install pytest")
    some = ["-k", "sup_lora"] if room.tiny else []
    workers = ["-n", "6"] if importlib.util.find_spec("xdist") and not room.tiny else []
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", "--tb=line", *workers, *some]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/test_parity.py"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env=os.environ | {"TEST_DEVICE": room.device},
    )
    print(done.stdout, done.stderr)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]]
    bad = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    text = lines[-1].strip("= ") + (f": {', '.join(bad[:8])}" if bad else "")
    yield checked("tests/test_parity.py", text, done.returncode == 0, failed=bad)
