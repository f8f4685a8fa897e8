"""Runs that are stopped, killed, starved of disk or moved: nothing is lost, and nothing comes out different."""

import errno
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from programs import Program
from runs import QUICK, SETTINGS, interrupted_at, same_result

import train
from src.configs.config import load_cfg
from src.engine import trainer
from src.engine.results import RunFolder
from src.engine.run import run
from src.engine.shared import Shared
from src.tools.demo import __main__ as demo
from src.tools.demo_studies import __main__ as demo_studies
from src.tools.runs import __main__ as runs
from src.tools.tune import __main__ as tune
from src.utils.io import WriteError, exclusive, read_json, read_json_lines, waiting_for, write_text
from src.utils.signals import REQUEUE, Interrupted, StopSignals


def wait_for(process: Program, path: Path, rows: int = 1) -> None:
    """Until ``rows`` epochs are done."""
    while not (path.is_file() and len(read_json_lines(path)) >= rows):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that nobody interrupts."""
    folder = RunFolder(tmp_path_factory.mktemp("whole") / "run")
    run(load_cfg("", SETTINGS), folder)
    return folder.path


@pytest.mark.parametrize("steps", [[0], [9], [4, 5, 6, 25], [12, 39]])
def test_a_run_stopped_after_any_step_goes_on_to_the_very_same_result(whole, tmp_path, monkeypatch, steps):
    """10 steps an epoch: in the first step, in the last of an epoch, in steps that follow one another."""
    interrupted_at(monkeypatch, steps)
    folder, stops = RunFolder(tmp_path / "run"), 0
    while True:
        try:
            run(load_cfg("", SETTINGS), folder, resume=stops > 0)
            break
        except Interrupted:
            stops += 1
            assert folder.last.is_file()
            assert not folder.result.exists()
    assert stops == len(steps)
    same_result(whole, folder.path)


def test_steps_are_saved_in_between(whole, tmp_path, monkeypatch):
    """What SAVE_EVERY wrote is enough to go on from when nothing else could be written."""
    honest = trainer.TrainingStep.__call__
    count = iter(range(10**6))

    def step(self, *args):
        if next(count) == 27:
            raise ZeroDivisionError
        return honest(self, *args)

    often = load_cfg("", [*SETTINGS, "SOLVER.SAVE_EVERY", "3"])
    with monkeypatch.context() as patch:
        patch.setattr(trainer.TrainingStep, "__call__", step)
        with pytest.raises(ZeroDivisionError):
            run(often, RunFolder(tmp_path / "run"))
    progress = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["progress"]
    assert (len(progress["rows"]), progress["steps"]) == (2, 6)
    run(load_cfg("", SETTINGS), RunFolder(tmp_path / "run"), resume=True)  # SAVE_EVERY is not the experiment
    same_result(whole, tmp_path / "run")


def test_the_exit_status_asks_to_be_started_again(whole, tmp_path):
    process = Program("train.py", *SETTINGS, "--run-dir", tmp_path / "run")
    wait_for(process, tmp_path / "run" / "metrics.jsonl")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == REQUEUE == 75
    assert "stopped by SIGTERM after epoch" in errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert train.main(["--run-dir", str(tmp_path / "run"), "--resume"]) == 0
    same_result(whole, tmp_path / "run")


def test_a_signal_outside_of_training_stops_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Training, "prepare", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    assert train.main([*SETTINGS, "--run-dir", str(tmp_path / "run")]) == REQUEUE
    assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def before(request):
    """What SIGINT does before a run: what a script starts in the background is to ignore it."""
    was = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, was)


def test_a_second_interrupt_does_not_wait(before):
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == "SIGINT"
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("tool", [runs, demo, demo_studies, tune], ids=lambda tool: tool.__name__)
def test_every_tool_that_trains_can_be_asked_to_stop_at_any_time(tmp_path, monkeypatch, capsys, tool):
    """Before the first run has begun, too: 75 with a line that says so, where the system itself would make it 143."""
    sent = []

    def read_data(self, cfg):
        sent.append(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Shared, "data", read_data)
    file = ["--config-file", "configs/sweeps/digits.yaml"] if tool is tune else []
    assert tool.main([*file, "OUTPUT_DIR", str(tmp_path), *(QUICK if tool is runs else [])]) == REQUEUE
    assert sent == [signal.SIGTERM]
    assert "stopped by SIGTERM; run the same command again to continue" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_random_moments(whole, tmp_path):
    """kill -9, again and again: every file that is there can be read, and the end is the same."""
    folder, kills = RunFolder(tmp_path / "run"), 0
    draw = random.Random(0)
    while kills < 2:
        resume = ["--resume"] if folder.config.is_file() and folder.config.stat().st_size else []
        process = Program("train.py", *SETTINGS, "--run-dir", folder.path, *resume)
        before = len(read_json_lines(folder.metrics)) if folder.metrics.is_file() else 0
        if kills % 2:
            wait_for(process, folder.metrics, min(before + 1, 3))
        time.sleep(draw.random() * (0.5 if kills % 2 else 1.5))
        process.kill()
        process.communicate()
        kills += 1
        if folder.last.is_file():
            rows = len(torch.load(folder.last, weights_only=True)["progress"]["rows"])
            assert rows >= len(read_json_lines(folder.metrics)) - 1
        if folder.result.is_file():
            break
    process = Program("train.py", *(["--run-dir", folder.path, "--resume"] if folder.config.is_file() else SETTINGS))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    same_result(whole, folder.path)
    assert not list(folder.path.glob("*.partial")) + list(folder.path.glob(".*.partial"))


def test_a_full_disk_ends_with_the_checkpoint_before_intact(whole, tmp_path):
    """The largest file that this process may write is limited, after one epoch, to less than a checkpoint."""
    folder = RunFolder(tmp_path / "run")
    size = 0

    def epoch_done(self):
        nonlocal size
        honest(self)
        if len(self.rows) == 2:
            size = folder.last.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))

    honest, (soft, hard) = trainer.Training.save, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer.Training, "save", epoch_done)
            with pytest.raises(
                WriteError, match=r"last\.ckpt cannot be written: File too large; its previous content is"
            ):
                run(load_cfg("", SETTINGS), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert folder.last.stat().st_size == size
    run(load_cfg("", SETTINGS), folder, resume=True)
    same_result(whole, folder.path)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"x\.txt cannot be written: Not a directory$"):
        write_text(tmp_path / "file" / "folder" / "x.txt", "")
    assert train.main([*SETTINGS, "--run-dir", str(tmp_path / "file" / "run")]) == 1
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "lock", [exclusive, lambda path: waiting_for(path, "waiting")], ids=["exclusive", "waiting_for"]
)
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_noted_once_and_used(tmp_path, monkeypatch, caplog, lock, code):
    def flock(file, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    for _ in range(2):
        with lock(tmp_path / "lock"):
            pass
    (note,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path) in note


def test_a_disk_that_fails_to_lock_is_named(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match=r"Input/output error: '.*lock'"), exclusive(tmp_path / "lock"):
        pass


def test_another_config_is_refused_with_the_difference(tmp_path, monkeypatch, capsys):
    interrupted_at(monkeypatch, [11])
    assert train.main([*SETTINGS, "--run-dir", str(tmp_path)]) == REQUEUE
    assert train.main([*SETTINGS, "--run-dir", str(tmp_path), "--resume", "SOLVER.BASE_LR", "0.5"]) == 1
    assert "  - SOLVER.BASE_LR: 0.003 there, 0.5 now" in capsys.readouterr().err


def test_what_is_different_on_another_machine_is_said(tmp_path, monkeypatch, caplog):
    interrupted_at(monkeypatch, [11])
    with pytest.raises(Interrupted):
        run(load_cfg("", SETTINGS), RunFolder(tmp_path / "run"))
    here = {"device": "NVIDIA H200", "processes": 4, "torch": "2.6.0"}
    monkeypatch.setattr(trainer.Training, "_circumstances", lambda self: here)
    with caplog.at_level("INFO"):
        run(load_cfg("", SETTINGS), RunFolder(tmp_path / "run"), resume=True)
    (note,) = [record.getMessage() for record in caplog.records if "now" in record.getMessage()]
    assert "device cpu before, NVIDIA H200 now" in note
    assert "processes 1 before, 4 now" in note
    assert "resuming after epoch 1/4, step 2" in caplog.text


def folder_settings(root: Path) -> list[str]:
    for i in range(12):
        place = root / "photos" / ("test" if i % 3 == 0 else "train") / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * i, 0, 90)).save(place / f"{i}.png")
    return [
        *QUICK, "DATA.NAME", "folder", "DATA.DATAPATH", str(root / "photos"), "MODEL.TRANSFER_TYPE", "linear",
        "DATA.BATCH_SIZE", "4", "SOLVER.TOTAL_EPOCH", "3", "DATA.TRAIN_SPLIT", "train",
    ]  # fmt: skip


def test_an_interrupted_run_does_not_go_on_with_other_classes(tmp_path, monkeypatch, capsys):
    settings = folder_settings(tmp_path)
    interrupted_at(monkeypatch, [1])
    assert train.main([*settings, "--run-dir", str(tmp_path / "run")]) == REQUEUE
    for split in ("train", "test"):
        (tmp_path / "photos" / split / "cat").rename(tmp_path / "photos" / split / "zebra")
    assert train.main([*settings, "--run-dir", str(tmp_path / "run"), "--resume"]) == 1
    said = capsys.readouterr().err
    assert "was interrupted with other classes" in said
    assert "gone: cat, new: zebra" in said


def test_an_interrupted_run_that_goes_on_with_other_images_says_so(tmp_path, monkeypatch):
    settings, folder = folder_settings(tmp_path), RunFolder(tmp_path / "run")
    interrupted_at(monkeypatch, [1])
    assert train.main([*settings, "--run-dir", str(folder.path)]) == REQUEUE
    assert read_json(folder.data)["class_names"] == ["cat", "dog"]
    Image.new("RGB", (16, 16), (7, 7, 7)).save(next((tmp_path / "photos/test/dog").iterdir()))  # same name
    assert train.main([*settings, "--run-dir", str(folder.path), "--resume"]) == 0
    notes = folder.read_result()["data"]["notes"]
    assert "the test images are not those that the run began with: 4 then, 4 now" in notes
    assert not any("train images are not those" in note for note in notes)
    assert not folder.data.exists()


def test_a_run_whose_test_needs_too_much_memory_goes_on_with_smaller_batches(tmp_path, monkeypatch):
    """Training is done by then; other keys must stay as they are."""
    folder, pairs = RunFolder(tmp_path / "run"), [*SETTINGS, "DATA.NO_TEST", "False"]

    def no_room(*args, **kwargs):
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("src.engine.run.evaluate", no_room)
        with pytest.raises(torch.OutOfMemoryError):
            run(load_cfg("", [*pairs, "DATA.EVAL_BATCH_SIZE", "400"]), folder)
    with pytest.raises(FileExistsError, match=r"SOLVER\.BASE_LR"):
        run(load_cfg("", [*pairs, "SOLVER.BASE_LR", "0.5"]), folder, resume=True)
    assert run(load_cfg("", [*pairs, "DATA.EVAL_BATCH_SIZE", "40"]), folder, resume=True)["test"]["images"] > 0
