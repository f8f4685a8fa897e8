import sys

if sys.platform == "win32":
    raise ImportError("ViTune runs on Linux and macOS; on Windows use WSL: https://learn.microsoft.com/windows/wsl")

from .utils import start

start.require_torch()
start.let_threads_sleep()
start.have_a_user()
