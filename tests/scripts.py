"""run.sh with a stand-in for Python, for tests of the script and of the commands that the documentation has."""

import subprocess
from collections.abc import Callable
from pathlib import Path


def run_sh_in(folder: Path) -> Callable[[str], list[str]]:
    """run.sh in ``folder``, with a Python that prints only how it was called: a line of bash -> its arguments."""
    (folder / "run.sh").write_text(Path("run.sh").read_text())
    (folder / "env_setup.sh").write_text("")
    (folder / ".venv" / "bin").mkdir(parents=True)
    stub = folder / ".venv" / "bin" / "python"
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)

    def call(line: str) -> list[str]:
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return call


def run_sh_settings(args: list[str]) -> tuple[str, list[str], list[str]]:
    """The config, seeds and KEY VALUE pairs that run.sh passes on."""
    assert args[:3] == ["-m", "src.tools.runs", "--config-file"]
    assert args[4] == "--seeds"
    config = args[3]
    if config.startswith("/"):
        config = config[config.index("configs/") :]
    return config, args[5].split(), args[6:]
