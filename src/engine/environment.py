"""The machine and the code that made a result: versions, device, commit, command line."""

import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from .. import __version__

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "yacs", "fvcore")


def environment(device: torch.device | None = None) -> dict:
    """Versions, machine and code, for the record."""
    on_gpu = torch.cuda.is_available() and (device is None or device.type == "cuda")
    return {
        "python": platform.python_version(),
        "packages": {"vitune": __version__} | {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "git": _git_revision(),
        "command": command_line(),
    }


def command_line() -> str:
    """How this process was started, or the one that it works for; to be run in this folder, as bash takes it."""
    program, package = Path(sys.argv[0]).absolute(), Path(__file__).parents[1]
    called = [sys.argv[0]]
    if program.is_relative_to(package):  # python -m src.tools.demo, or python -m vitune.tools.demo
        module = program.parent if program.name == "__main__.py" else program.with_suffix("")
        called = ["-m", ".".join((__name__.split(".")[0], *module.relative_to(package).parts))]
    return shlex.join([sys.executable, *called, *sys.argv[1:]])


@cache  # what this process runs is what it loaded, whatever is committed meanwhile
def _git_revision() -> str:
    """The commit, with "+changes" where src/ differs from it, new files included; "" outside a git checkout.

    Also "" where ViTune is installed below a checkout of something else: that commit says nothing about this code.
    """

    def git(*arguments: str) -> str:
        here = Path(__file__).parents[1]
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
