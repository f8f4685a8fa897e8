"""How programs start and end: without an account, without torch, on other systems, and quickly if little is asked."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

PLAIN = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def python(*args: str, cwd: Path = ROOT, **settings) -> subprocess.CompletedProcess:
    environment = {**PLAIN, "PYTHONPATH": str(ROOT), **settings.pop("env", {})}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True, **settings
    )  # fmt: skip


def test_help_and_misspelt_options_do_not_wait_for_torch():
    for args, status in ((["--help"], 0), (["--list-task", "--resum", "--nothing"], 2)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = python("train.py", *args)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == status, done.stderr
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_without_torch_one_line_says_what_to_do():
    done = python("-S", "train.py", "--help", env={"PYTHONPATH": ""})  # -S: no installed packages
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: torch is not installed for ")
    assert "source .venv/bin/activate" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_windows_is_told_about_wsl():
    done = python("-c", "import sys, runpy; sys.platform = 'win32'; runpy.run_path('train.py', run_name='__main__')")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: ViTune runs on Linux and macOS; on Windows use WSL: https://learn.microsoft.com/windows/wsl"
    ]


@pytest.mark.parametrize(
    ("said", "is_left"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "9"}, "None")],
)
def test_threads_sleep_while_they_wait_unless_told_otherwise(said, is_left):
    code = "import os, sys, src; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    assert python("-c", code, env=said).stdout.split() == [is_left, "False"]


NOBODY = """
import pwd, sys
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
import train
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_user_without_account_and_home_can_train(tmp_path):
    """As with ``docker run --user 12345`` of an image that knows no such user, and HOME unset."""
    settings = [
        "DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32", "SOLVER.TOTAL_EPOCH", "1",
        "SOLVER.WARMUP_EPOCH", "0", "DATA.PERCENTAGE", "0.1", "OUTPUT_DIR", "out", "DATA.NO_TEST", "True",
        "MODEL.MODEL_ROOT", str(ROOT / "pretrained"), "DATA.TRAIN_SPLIT", "train",
    ]  # fmt: skip
    done = python("-c", NOBODY, *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "are not kept" in done.stdout
    assert list(tmp_path.rglob("result.json"))
    assert not (tmp_path / "~").exists()


def test_a_reader_may_leave(tmp_path):
    """``| head``: the rest of the output is nobody's loss."""
    code = "import sys; from src.utils.text import put_out; sys.exit(put_out('line\\n' * 100_000))"
    line = f'{sys.executable} -c "{code}" | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=PLAIN, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (141, "line\n", "")
