"""What the tests themselves are built on."""

import signal
import subprocess
import sys

import pytest
import torch
from conftest import make_vit
from copies import Copies
from programs import Program, run_program
from torch import nn


class Tied(nn.Module):
    """Two layers with one weight, a buffer, and a frozen bias."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.one.bias.requires_grad = False
        self.register_buffer("count", torch.arange(3))


def test_copies_are_alike_and_share_nothing():
    tied = Tied()
    copies = Copies(tied)
    with torch.no_grad():
        tied.one.weight.zero_()  # after the copy was taken
    first, second = copies(), copies()
    assert first.other.weight is first.one.weight
    assert not first.one.bias.requires_grad
    assert first.one.weight.requires_grad
    assert first.one.weight.any()
    with torch.no_grad():
        first.one.weight.add_(1)
        first.count.add_(1)
    torch.testing.assert_close(first.one.weight, second.one.weight + 1)
    assert second.count.tolist() == [0, 1, 2]


def test_a_copied_vit_computes_the_same(images):
    vit = make_vit()
    assert torch.equal(Copies(vit)()(images), vit(images))


CODE = """
import os, sys, time
print(sys.argv[1:], os.getcwd(), os.environ.get("OWN"), "HOME" in os.environ)
print("to stderr", file=sys.stderr)
if sys.argv[1] == "fail": raise ValueError("no")
if sys.argv[1] == "exit": sys.exit(75)
if sys.argv[1] == "text": sys.exit("a reason")
if sys.argv[1] == "wait": time.sleep(60)
"""


@pytest.mark.parametrize("what", ["end", "fail", "exit", "text"])
def test_a_program_does_what_python_does(what, tmp_path):
    settings = dict(cwd=tmp_path, env={"OWN": "1"})
    ours = run_program("-c", CODE, what, "a b", **settings)
    python = subprocess.run([sys.executable, "-c", CODE, what, "a b"], capture_output=True, text=True, **settings)
    assert (ours.returncode, ours.stdout) == (python.returncode, python.stdout)
    last = [done.stderr.strip().splitlines()[-1] for done in (ours, python)]
    assert last[0] == last[1]
    assert len(ours.stderr) >= len("to stderr")


def test_a_program_can_be_stopped_and_does_not_outlive_its_time(tmp_path):
    program = Program("-c", CODE, "wait", output=tmp_path / "log")
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.2)
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) == -signal.SIGTERM
    with pytest.raises(subprocess.TimeoutExpired):
        run_program("-c", CODE, "wait", timeout=0.2)
