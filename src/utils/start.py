"""What must be so before torch is loaded: the system is one of ours, torch is there, and threads wait asleep."""

import importlib.util
import os
import pwd
import sys

# The variables that control how threads wait: if one of them is set, it is left alone.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def require_torch() -> None:
    """Raises ImportError where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ImportError(
            f"torch is not installed for {sys.executable}: pip install torch torchvision, or, in a checkout, "
            "bash env_setup.sh, which creates .venv with it, and then source .venv/bin/activate"
        )


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for each other, which costs microseconds.

    By default they spin. Where other programs want the same cores that takes the time in which the thread that is
    waited for could have run: 20 steps of a tiny ViT with two threads took 237 s on a busy machine, and 19 s asleep.
    What is computed stays the same, bit for bit; with fewer threads it would not.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def have_a_user() -> None:
    """Give users without an account (docker --user) a name: torch asks for one when it is loaded."""
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"uid-{os.getuid()}"
