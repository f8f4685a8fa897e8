"""Runs through the door a user uses: train, resume, evaluate, load back; and what must stop with a reason."""

import dataclasses
import itertools
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
import yaml
from methods import ALONE, MIXES, each
from PIL import Image
from programs import Program, run_program
from runs import QUICK, quick, same_result
from safetensors import safe_open

import train
from src.configs.config import flatten, load_cfg
from src.data.opened import open_data
from src.engine.checkpoint import CheckpointError, load_tuned
from src.engine.evaluator import best_test_epoch, measure, predict
from src.engine.results import RunFolder
from src.engine.run import evaluate_run, run
from src.engine.shared import Shared
from src.engine.trainer import NonFiniteLoss, autocast
from src.utils.io import exclusive, read_json, read_json_lines, write_atomic
from src.utils.signals import Interrupted


@pytest.fixture
def main(capsys):
    """train.py in this process, which saves the time its imports take."""

    def call(*args) -> subprocess.CompletedProcess:
        status = train.main([str(arg) for arg in args])
        return subprocess.CompletedProcess(args, status, *capsys.readouterr())

    return call


# --- a finished run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the command line, and what it printed."""
    out = tmp_path_factory.mktemp("finished")
    methods = ["MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit"]
    done = run_program("train.py", *QUICK, "OUTPUT_DIR", out, *methods)
    assert done.returncode == 0, done.stderr
    (result,) = out.rglob("result.json")
    return RunFolder(result.parent), done


def test_the_last_line_is_the_result(finished):
    folder, done = finished
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("result: test top-1 ")
    assert f"{100 * read_json(folder.result)['test']['top1']:.2f} %" in last
    assert sum(line.startswith("epoch ") for line in done.stdout.splitlines()) == 3


def test_the_folder_holds_everything(finished):
    folder, _ = finished
    names = {p.name for p in folder.path.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert events
    assert names - events == {
        "config.yaml", "wiring.txt", "metrics.jsonl", "result.json", "tuned.safetensors", "log.txt"
    }  # fmt: skip
    assert "SpectralFilter" in folder.wiring.read_text()
    assert [row["epoch"] for row in read_json_lines(folder.metrics)] == [1, 2, 3]


def test_the_result_says_what_was_done(finished):
    result = read_json(finished[0].result)
    assert result["test"]["images"] == 797
    assert 0 <= result["test"]["top1"] <= result["test"]["top5"] <= 1
    assert result["data"]["images"] == {"train": 100, "test": 797}
    pixels = {"size": [12, 12], "augment": "none", "mean": [0.5] * 3, "std": [0.5] * 3, "preset": "backbone"}
    assert pixels.items() <= result["pixels"].items()
    assert (result["data"]["layout"], result["data"]["notes"]) == ("digits", [])
    assert result["class_names"] == [str(i) for i in range(10)]
    assert result["config"]["MODEL.TRANSFER_TYPE"] == "lora"
    saved = yaml.safe_load(finished[0].config.read_text())
    assert result["config_in_full"] == flatten(saved)
    assert result["config_in_full"]["SOLVER.MOMENTUM"] == 0.9
    assert result["seed"] == 42
    assert result["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    parts = result["parameters"]["by_part"]
    # 5 filters of 3 x 2 x 64 complex weights, 64 scales and 64 shifts; 18 L r D for LoRA.
    assert parts == {"freqfit": 5 * (3 * 2 * 64 * 2 + 128), "lora": 18 * 4 * 8 * 64, "vit": 0, "head": 650}
    assert result["cost"]["learned_bytes"] == 4 * sum(parts.values())


def test_eval_only_gives_the_same_accuracy(finished, main):
    folder, _ = finished
    done = main("--run-dir", folder.path, "--eval-only")
    assert done.returncode == 0, done.stderr
    assert f"{100 * read_json(folder.result)['test']['top1']:.2f} %" in done.stdout.strip().splitlines()[-1]
    cfg = load_cfg(folder.config)
    assert evaluate_run(folder, cfg) == read_json(folder.result)["test"]
    done = main("--run-dir", folder.path, "--eval-only", "MODEL.LORA.RANK", "4")
    assert done.returncode == 1
    assert "another MODEL.LORA.RANK" in done.stderr
    done = main("--run-dir", folder.path.parent, "--eval-only")
    assert done.returncode == 1
    assert "must name a run's folder" in done.stderr


def test_a_result_is_not_overwritten(finished, main):
    folder, _ = finished
    before = folder.result.read_bytes()
    out = folder.path.parents[3]
    again = [*QUICK, "OUTPUT_DIR", out, "MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit"]
    done = main(*again)
    assert done.returncode == 1
    assert "already holds a result" in done.stderr
    done = main(*again, "--resume")
    assert done.returncode == 0
    assert done.stdout.strip().splitlines()[-1].startswith("result: ")
    done = main("--run-dir", folder.path, "--config-file", "configs/digits.yaml", "--resume")
    assert done.returncode == 1
    assert "another config" in done.stderr
    assert folder.result.read_bytes() == before


# --- loading back


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> list[str]:
    """Settings for a run on so few images that only its fixed costs remain."""
    root, numbers = tmp_path_factory.mktemp("few"), np.random.default_rng(0)
    for split, name in itertools.product(("train", "test"), ("blue", "red", "white")):
        (root / split / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(numbers.integers(0, 256, (8, 8, 3), np.uint8)).save(root / split / name / f"{i}.png")
    return ["DATA.NAME", "folder", "DATA.DATAPATH", str(root), "DATA.TRAIN_SPLIT", "trainval", "DATA.PERCENTAGE", "1.0"]


@pytest.fixture(scope="module")
def shared():
    return Shared()


@each(ALONE + MIXES[1::4])  # what mixes save, tests/models/test_methods.py compares for all of them
def test_every_method_loads_back_bit_identical(names, freqfit, tmp_path, few, shared):
    cfg, folder = quick(
        tmp_path, "MODEL.TRANSFER_TYPE", names, "FREQFIT", freqfit or "None", "SOLVER.TOTAL_EPOCH", "1",
        "SOLVER.WARMUP_EPOCH", "0", "MODEL.MLP_NUM", "1", "SOLVER.SCHEDULER", "constant", *few,
    )  # fmt: skip
    result = run(cfg, folder, shared=shared)
    loaders, _ = open_data(cfg).loaders(cfg, torch.device("cpu"))
    one, other = load_tuned(folder.path), load_tuned(folder.tuned)
    logits, labels = predict(one.model, loaders["test"], autocast(cfg, torch.device("cpu")))
    assert measure(logits, labels).as_dict() == result["test"]  # with the mean loss, which every bit of a logit moves
    again, _ = predict(other.model, loaders["test"], autocast(cfg, torch.device("cpu")))
    assert torch.equal(logits, again)
    assert other.class_names == result["class_names"]
    assert names == one.cfg.MODEL.TRANSFER_TYPE
    assert dataclasses.asdict(one.pixels) == result["pixels"]


def test_single_images_go_in_as_the_loader_gives_them(finished):
    tuned = load_tuned(finished[0].path)
    data = open_data(tuned.cfg)
    loaders, _ = data.loaders(tuned.cfg, torch.device("cpu"))
    images, _ = next(iter(loaders["test"]))
    single = torch.stack([tuned.pixels.input(data.splits["test"].read(i)) for i in range(len(images))])
    assert torch.equal(single, images)


def test_file_of_other_weights_is_refused(tmp_path, finished):
    arrays = dict(np.load("pretrained/vit_micro_glyphs.npz"))
    arrays["cls"] = arrays["cls"] + 1e-3
    np.savez(tmp_path / "vit_micro_glyphs.npz", **arrays)
    with pytest.raises(CheckpointError, match="other weights"):
        load_tuned(finished[0].path, ["MODEL.MODEL_ROOT", str(tmp_path)])
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        load_tuned(tmp_path / "nothing")


def test_a_broken_tuned_file_is_named(tmp_path):
    (tmp_path / "tuned.safetensors").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"tuned\.safetensors is broken"):
        load_tuned(tmp_path)


def test_a_run_is_loaded_from_anywhere(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_tuned(finished[0].path).class_names[3] == "3"


def test_metadata_can_be_read_by_others(finished):
    with safe_open(finished[0].tuned, framework="pt") as file:
        assert set(file.metadata()) == {
            "format",
            "config",
            "class_names",
            "pixels",
            "backbone",
            "without_files",
            "checksum",
        }
        assert "head.last_layer.weight" in file.keys()
        assert not any(name.startswith("vit.") for name in file.keys())


# --- interruption


@pytest.mark.slow
def test_killed_run_resumes_to_the_very_same_result(tmp_path):
    settings = [
        *QUICK, "MODEL.TRANSFER_TYPE", "prompt+lora", "MODEL.PROMPT.DROPOUT", "0.3", "FREQFIT", "freqfit",
        "SOLVER.TOTAL_EPOCH", "5", "DATA.AUGMENT", "crop_flip",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(load_cfg("", settings), RunFolder(whole))
    process = Program("train.py", *settings, "--run-dir", broken)
    metrics = broken / "metrics.jsonl"
    while not (metrics.is_file() and len(read_json_lines(metrics)) >= 2):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "result.json").exists()

    refused = run_program("train.py", *settings, "--run-dir", broken)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    resumed = run_program("train.py", "--run-dir", broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch" in resumed.stdout
    same_result(whole, broken)
    assert not (broken / "last.ckpt").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
def test_a_broken_last_ckpt_says_what_to_do(tmp_path, main, content):
    cfg, folder = quick(tmp_path)
    folder.path.mkdir(parents=True)
    folder.config.write_text(cfg.dump())
    folder.last.write_bytes(content)
    (folder.path / ".last.ckpt.x.partial").write_bytes(b"half")
    done = main(*QUICK, "OUTPUT_DIR", tmp_path, "--resume")
    assert done.returncode == 1
    assert "last.ckpt is broken: remove it" in done.stderr
    assert not (folder.path / ".last.ckpt.x.partial").exists()


def test_a_second_process_is_turned_away(tmp_path):
    cfg, folder = quick(tmp_path)
    with exclusive(folder.log), pytest.raises(FileExistsError, match="another process"):
        run(cfg, folder)
    assert run(cfg, folder)["test"]["images"] == 797


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


# --- training


def test_early_stopping_takes_the_best_epoch(tmp_path):
    cfg, folder = quick(
        tmp_path, "DATA.TRAIN_SPLIT", "train", "SOLVER.PATIENCE", "2", "SOLVER.TOTAL_EPOCH", "40",
        "SOLVER.SCHEDULER", "constant", "SOLVER.BASE_LR", "0.02", "MODEL.TRANSFER_TYPE", "lora",
    )  # fmt: skip
    result = run(cfg, folder)
    rows = read_json_lines(folder.metrics)
    best = max(rows, key=lambda row: row["val_top1"])
    assert len(rows) == result["epochs"] < 40
    assert result["epoch_used"] == best["epoch"] == len(rows) - 2
    assert result["val"]["top1"] == best["val_top1"]
    loaders, _ = open_data(cfg).loaders(cfg, torch.device("cpu"))
    val = measure(*predict(load_tuned(folder.path).model, loaders["val"], autocast(cfg, torch.device("cpu"))))
    assert val.top1 == best["val_top1"]


def test_pieces_of_a_batch_add_up_to_the_whole(tmp_path):
    losses = []
    for pieces in ("1", "3"):
        cfg, folder = quick(tmp_path, "SOLVER.ACCUMULATE", pieces, "SOLVER.OPTIMIZER", "sgd", "SOLVER.BASE_LR", "0.1")
        run(cfg, folder)
        losses.append([row["loss"] for row in read_json_lines(folder.metrics)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_gradient_clipping_limits_the_step(tmp_path):
    moved = []
    for limit in ("0", "1e-6"):
        cfg, folder = quick(
            tmp_path, "SOLVER.CLIP_GRAD", limit, "SOLVER.OPTIMIZER", "sgd", "SOLVER.WEIGHT_DECAY", "0",
            "SOLVER.MOMENTUM", "0",
        )  # fmt: skip
        run(cfg, folder)
        moved.append(load_tuned(folder.path).model.head.last_layer.bias.add(4.59512).abs().max().item())
    assert moved[0] > 1e-3
    assert moved[1] < 1e-5


@pytest.mark.parametrize(
    "pairs",
    [
        ["SOLVER.LOSS", "sigmoid"],
        ["SOLVER.LABEL_SMOOTHING", "0.1"],
        ["DATA.CLASS_WEIGHTS_TYPE", "inv_sqrt"],
        ["SOLVER.AMP", "bf16"],
        ["SOLVER.OPTIMIZER", "adam"],
        ["SOLVER.SEARCH_EPOCH", "2"],
        ["DATA.NO_TEST", "True", "DATA.TRAIN_SPLIT", "train"],
        ["MODEL.TRANSFER_TYPE", "lora", "DATA.IMAGE_SIZE", "[32, 48]"],
        ["MODEL.MLP_NUM", "1", "DATA.BATCH_SIZE", "33", "MODEL.TRANSFER_TYPE", "bias"],  # 100 = 3 * 33 + 1
        ["MODEL.MLP_NUM", "2", "SOLVER.ACCUMULATE", "9", "DATA.BATCH_SIZE", "11"],
    ],
    ids=lambda pairs: "-".join(pairs[:2]),
)
def test_options_train(tmp_path, pairs):
    cfg, folder = quick(tmp_path, *pairs)
    result = run(cfg, folder)
    rows = read_json_lines(folder.metrics)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert (result["test"] is None) == cfg.DATA.NO_TEST
    assert len(rows) == (2 if cfg.SOLVER.SEARCH_EPOCH else 3)


def test_same_seed_same_result_and_another_seed_another(tmp_path):
    accuracies = {}
    for where, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        cfg, folder = quick(tmp_path / where, "SEED", seed, "MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit")
        accuracies[where] = run(cfg, folder)["train_loss"]
    assert accuracies["a"] == accuracies["b"] != accuracies["c"]


def test_the_test_set_is_read_once(tmp_path, monkeypatch):
    from src.engine import run as run_module
    from src.engine import trainer

    seen = []

    def spy(model, loader, context, **more):
        seen.append(len(loader.labels))
        return original(model, loader, context, **more)

    original = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", spy)
    monkeypatch.setattr(run_module, "evaluate", spy)
    cfg, folder = quick(tmp_path, "DATA.TRAIN_SPLIT", "train")
    run(cfg, folder)
    assert seen == [200, 200, 200, 797]


@pytest.mark.parametrize("kept", ["auto", "off"])  # on activations, and on images
def test_the_best_test_epoch_is_recorded_and_changes_nothing(tmp_path, caplog, kept):
    """What each epoch would have given is known from runs that end after it."""
    alone = {}
    for epochs in (1, 3):
        cfg, folder = quick(tmp_path, "DATA.CACHE_FEATURES", kept, "SOLVER.SEARCH_EPOCH", str(epochs))
        alone[epochs] = run(cfg, folder)
        assert alone[epochs]["test_best_epoch"] is None
    asked = ("DATA.CACHE_FEATURES", kept, "SOLVER.SEARCH_EPOCH", "3", "SOLVER.BEST_TEST_EPOCH", "True")
    cfg, folder = quick(tmp_path, *asked)
    assert "SOLVER.BEST_TEST_EPOCH tests after every epoch" in caplog.text
    result = run(cfg, folder)
    tested = {row["epoch"]: row["test_top1"] for row in read_json_lines(folder.metrics)}
    assert {epoch: tested[epoch] for epoch in alone} == {epoch: one["test"]["top1"] for epoch, one in alone.items()}
    best = result["test_best_epoch"]
    assert (best["epoch"], best["top1"]) == max(tested.items(), key=lambda item: item[1])
    assert "chosen on the test set" in best["note"]
    for name in ("test", "val", "epoch_used", "train_loss"):
        assert result[name] == alone[3][name]


def test_the_best_test_epoch_survives_an_interruption(tmp_path, monkeypatch):
    pairs = ("SOLVER.BEST_TEST_EPOCH", "True", "SOLVER.BASE_LR", "0.03")
    cfg, folder = quick(tmp_path / "whole", *pairs)
    whole = run(cfg, folder)
    cfg, folder = quick(tmp_path / "again", *pairs)
    monkeypatch.setattr("src.engine.trainer.Training._report", lambda self, row: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        run(cfg, folder)
    monkeypatch.undo()
    assert run(cfg, folder, resume=True)["test_best_epoch"] == whole["test_best_epoch"]


def test_the_best_of_some_rows_is_the_first_highest():
    rows = [
        {"epoch": i, "test_top1": top1, "test_mean_per_class": 1 - top1} for i, top1 in enumerate([0.2, 0.7, 0.7], 1)
    ]
    assert best_test_epoch(rows, "top-1")["epoch"] == 2
    assert best_test_epoch(rows, "mean per class") | {"note": ""} == {
        "epoch": 1, "note": "", "top1": 0.2, "mean_per_class": 0.8,
    }  # fmt: skip


def test_the_best_test_epoch_needs_a_test_set(tmp_path):
    pairs = ("SOLVER.BEST_TEST_EPOCH", "True", "DATA.NO_TEST", "True")
    with pytest.raises(ValueError, match=r"SWEEP.FINAL.SOLVER.BEST_TEST_EPOCH True"):
        quick(tmp_path, *pairs)
    for name in ("red", "blue"):
        (tmp_path / "photos/train" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (32, 32), name).save(tmp_path / f"photos/train/{name}/{i}.png")
    cfg, folder = quick(
        tmp_path, "SOLVER.BEST_TEST_EPOCH", "True", "DATA.NAME", "folder", "DATA.DATAPATH", str(tmp_path / "photos")
    )
    with pytest.raises(ValueError, match="folder has no test set here"):
        run(cfg, folder)


# --- things that must stop


BIG = ["DATA.CROPSIZE", "16"]


def test_non_finite_loss_says_where(tmp_path):
    cfg, folder = quick(tmp_path, "SOLVER.OPTIMIZER", "sgd", "SOLVER.BASE_LR", "1e30", "SOLVER.WARMUP_EPOCH", "0")
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step \d+, with learning rate [\d.]+e\+29.*BASE_LR"):
        run(cfg, folder)
    assert not folder.result.exists()


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["SOLVER.BASE_LRR", "1"], 2, "SOLVER.BASE_LR"),
        (["--config-file", "nowhere.yaml"], 2, "nowhere.yaml"),
        (
            ["DATA.FEATURE", "sup_vitb16_imagenet21k", *BIG],
            1,
            "storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz",
        ),
        (["DATA.FEATURE", "clip_vitb16", *BIG], 1, "openaipublic.azureedge.net/clip/models/5806e77c"),
        (["DATA.CROPSIZE", "30"], 2, "patches of 4x4"),
        (["DATA.IMAGE_SIZE", "[32, -32]"], 2, "DATA.IMAGE_SIZE"),
        (["SOLVER.BASE_LR", "1e999"], 2, "SOLVER.BASE_LR"),
        (["DEVICE", "mps"], 2, "it must be auto, cpu, cuda or cuda:<n>"),
        (["DATA.NAME", "folder"], 1, "DATA.DATAPATH is not set"),
        (["MODEL.MLP_NUM", "1", "DATA.BATCH_SIZE", "1"], 2, "at least 2"),
        (["DATA.NAME", "folder", "DATA.DATAPATH", "nowhere"], 1, "nowhere is not a folder"),
        (["DEVICE", "tpu9"], 2, "DEVICE is 'tpu9'"),
        (["MODEL.TRANSFER_TYPE", "partial-9"], 1, "4 blocks"),
        (["MODEL.WEIGHT_PATH", "README.md"], 1, "README.md"),
    ],
)
def test_user_errors_end_with_one_clear_line(tmp_path, main, args, status, says):
    done = main(*QUICK, "OUTPUT_DIR", tmp_path, *args)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("result.json"))


def test_own_images_end_to_end(tmp_path, main):
    """Two colours, one val split made from train, an unreadable file left out, class names in the result."""
    for split, count in (("train", 20), ("test", 6)):
        for name, colour in (("blue", (20, 20, 200)), ("red", (200, 20, 20))):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", (40 + i, 50), tuple(c + i for c in colour))
                image.convert("CMYK" if i == 0 else "RGB").save(tmp_path / "photos" / split / name / f"{i}.jpg")
    (tmp_path / "photos" / "train" / "red" / "text.jpg").write_text("not an image")
    args = [
        "--config-file", "configs/folder.yaml", "DATA.DATAPATH", tmp_path / "photos", "OUTPUT_DIR", tmp_path / "out",
        "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32", "SOLVER.TOTAL_EPOCH", "5", "DATA.BATCH_SIZE", "8",
    ]  # fmt: skip
    stopped = main(*args)
    assert stopped.returncode == 1
    assert "train/red/text.jpg" in stopped.stderr
    done = main(*args, "DATA.CORRUPT", "skip")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("result.json")
    result = read_json(path)
    assert result["class_names"] == ["blue", "red"]
    assert result["data"]["images"] == {"train": 32, "val": 8, "test": 12}
    assert len(result["data"]["left_out"]) == 1
    assert result["test"]["top1"] == 1.0
