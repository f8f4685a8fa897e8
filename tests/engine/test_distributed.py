"""Two processes do what one does: gloo between CPUs, as torchrun starts them."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from programs import Program, run_program
from runs import QUICK
from safetensors.torch import load_file

from src.configs.config import load_cfg
from src.engine.results import RunFolder
from src.engine.run import run
from src.utils import distributed
from src.utils.io import read_json, read_json_lines

pytestmark = pytest.mark.slow

SETTINGS = [
    *QUICK, "DATA.TRAIN_SPLIT", "train", "DATA.BATCH_SIZE", "13", "SOLVER.TOTAL_EPOCH", "2"
]  # fmt: skip
# Not adam: it makes the same step of a gradient that is nothing but rounding, such as that of the keys' bias.
END2END = ["MODEL.TRANSFER_TYPE", "end2end", "SOLVER.OPTIMIZER", "sgd", "SOLVER.BASE_LR", "0.02"]


def start(count: int, *args) -> list[Program]:
    """As torchrun starts them: the same command, and who is who in the environment."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    environment = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [
        Program("train.py", *args, env=os.environ | environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]


def finish(processes: list[Program]) -> list[tuple[int, str, str]]:
    return [(process.returncode, *out) for process in processes for out in [process.communicate(timeout=240)]]


def together(count: int, folder: Path, *settings) -> dict:
    done = finish(start(count, *SETTINGS, "--run-dir", folder, *settings))
    assert [status for status, *_ in done] == [0] * count, done
    assert "result: " in done[0][1]
    assert not any(out for _, out, _ in done[1:])  # only the first one talks
    return read_json(folder / "result.json")


def alone(folder: Path, *settings) -> dict:
    return run(load_cfg("", [*SETTINGS, *settings]), RunFolder(folder))


def assert_alike(one: Path, other: Path) -> None:
    """Losses, accuracies and what was learned, up to the order in which sums are taken."""
    rows, others = (read_json_lines(path / "metrics.jsonl") for path in (one, other))
    assert len(rows) == len(others)
    for row, its in zip(rows, others, strict=True):
        assert row["loss"] == pytest.approx(its["loss"], rel=1e-4)
        assert row["val_images"] == its["val_images"]
        assert row["val_top1"] == pytest.approx(its["val_top1"], abs=0.006)
    a, b = load_file(one / "tuned.safetensors"), load_file(other / "tuned.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-4, rtol=1e-3, msg=name)


def assert_tested_alike(one: dict, other: dict) -> None:
    """The whole test set, each image once: 797 are no multiple of two or three processes' batches."""
    assert other["test"]["images"] == one["test"]["images"] == 797
    assert other["test"]["top1"] == pytest.approx(one["test"]["top1"], abs=0.004)
    assert other["test"]["loss"] == pytest.approx(one["test"]["loss"], rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        # Batches of 13, 13, ..., 2 of 80: parts of unequal size.
        [
            *["MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit", "SOLVER.ACCUMULATE", "3", "SOLVER.CLIP_GRAD", "0.5"],
            *["MODEL.RECOMPUTE", "auto"],
        ],
        ["MODEL.TRANSFER_TYPE", "linear"],
        ["DATA.MIXUP", "0.4", "DATA.CUTMIX", "1.0", "DATA.AUGMENT", "crop_flip", "MODEL.TRANSFER_TYPE", "adapter"],
        [*END2END],
        [
            *[*END2END, "SOLVER.FSDP", "True", "SOLVER.ACCUMULATE", "2", "SOLVER.CLIP_GRAD", "0.5"],
            *["MODEL.RECOMPUTE", "auto"],
        ],
    ],
    ids=["lora", "linear", "mixing", "ddp", "fsdp"],
)
def test_two_processes_do_what_one_does(tmp_path, settings):
    one, two = alone(tmp_path / "one", *settings), together(2, tmp_path / "two", *settings)
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert_tested_alike(one, two)
    assert two["cost"]["processes"] == 2
    assert two["cost"]["parameters"] == one["cost"]["parameters"]


def test_three_processes_with_batches_smaller_than_their_number(tmp_path):
    """80 images in batches of 13 leave 2 for three processes: one of them has none."""
    one = alone(tmp_path / "one", "MODEL.TRANSFER_TYPE", "lora")
    three = together(3, tmp_path / "three", "MODEL.TRANSFER_TYPE", "lora")
    assert_alike(tmp_path / "one", tmp_path / "three")
    assert_tested_alike(one, three)


def wait_for_an_epoch(processes: list[Program], folder: Path) -> None:
    while not (folder / "last.ckpt").is_file():
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.02)


LONG = [*END2END, "SOLVER.FSDP", "True", "SOLVER.TOTAL_EPOCH", "4"]


def test_stopped_with_two_processes_and_resumed_with_one(tmp_path):
    folder = tmp_path / "run"
    processes = start(2, *SETTINGS, *LONG, "--run-dir", folder)
    wait_for_an_epoch(processes, folder)
    processes[1].send_signal(signal.SIGTERM)  # one hears it, both stop after the same step
    done = finish(processes)
    assert [status for status, *_ in done] == [75, 75], done
    assert "after epoch" in done[0][2]
    resumed = run_program("train.py", "--run-dir", folder, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "processes 2 before, 1 now" in resumed.stdout
    alone(tmp_path / "one", *LONG)
    assert_alike(tmp_path / "one", folder)


def test_when_one_dies_the_other_ends_with_a_reason(tmp_path):
    folder = tmp_path / "run"
    processes = start(2, *SETTINGS, "MODEL.TRANSFER_TYPE", "lora", "SOLVER.TOTAL_EPOCH", "50", "--run-dir", folder)
    wait_for_an_epoch(processes, folder)
    processes[1].kill()
    (status, _, errors), _ = finish(processes)
    assert status == 1
    assert errors.strip().splitlines()[-1].startswith("error: process 0 of 2: another process of this run has ended")
    assert "Traceback" not in errors
    assert torch.load(folder / "last.ckpt", weights_only=True)["progress"]["rows"]


def test_torchrun_starts_it(tmp_path):
    """The door: torchrun, as the README says."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py"]
    settings = [*SETTINGS, "--run-dir", tmp_path / "run", "SOLVER.TOTAL_EPOCH", "1"]
    settings += ["SOLVER.WARMUP_EPOCH", "0"]
    done = run_program(*command, *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith("result: test top-1")
    assert read_json(tmp_path / "run" / "result.json")["cost"]["processes"] == 2


def test_batch_norms_need_gpus(tmp_path):
    done = finish(start(2, *SETTINGS, "MODEL.MLP_NUM", "1", "--run-dir", tmp_path / "run"))
    assert [status for status, *_ in done] == [1, 1]
    assert "batch norms" in done[0][2]


def test_an_environment_without_a_meeting_point_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="RANK, MASTER_ADDR, MASTER_PORT is not set: start with torchrun"):
        run(load_cfg("", SETTINGS), RunFolder(tmp_path / "run"))


def test_parts_are_put_together_in_order():
    whole = torch.arange(14).view(7, 2)
    for count in (1, 2, 3, 5):
        assert torch.equal(distributed.interleave([whole[which::count] for which in range(count)]), whole)
