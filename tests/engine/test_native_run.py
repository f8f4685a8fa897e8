"""Pictures of many shapes through the doors a user uses, with ``DATA.RESIZE native`` on a small NaFlex network."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from runs import interrupted_at, same_result

from src.configs.config import load_cfg
from src.engine.results import run_folder
from src.engine.run import evaluate_run, run
from src.tools.attention import __main__ as attention
from src.tools.export import __main__ as export
from src.tools.predict import __main__ as predict
from src.tools.robustness import __main__ as robustness
from src.tools.serve.limits import Limits
from src.tools.serve.mixed import compute
from src.tools.serve.models import Models
from src.utils.io import read_json
from src.utils.signals import Interrupted

NAME = "naflexvit_base_patch16_gap"


@pytest.fixture(scope="module")
def small():
    """timm makes NaFlex networks of two narrow blocks."""
    real, patch = timm.create_model, pytest.MonkeyPatch()
    patch.setattr(
        timm, "create_model", lambda name, *a, **k: real(name, *a, **{"depth": 2, "embed_dim": 32, "num_heads": 2, **k})
    )
    yield
    patch.undo()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes, of reddish and bluish pictures, wide and tall; and weights."""
    folder, rng = tmp_path_factory.mktemp("native"), np.random.RandomState(0)
    for split, count in (("train", 16), ("val", 4), ("test", 8)):
        for channel in (0, 2):
            (folder / split / f"{channel}").mkdir(parents=True)
            for i in range(count):
                pixels = rng.randint(0, 100, (*rng.randint(20, 120, 2), 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / split / f"{channel}" / f"{i}.png")
    return folder


def settings(photos: Path, out: Path, *pairs: str):
    return load_cfg(
        "folder",
        ["DATA.DATAPATH", str(photos), "DATA.FEATURE", f"timm:{NAME}", "MODEL.WEIGHT_PATH", str(photos / "weights.pth"),
         "DATA.CROPSIZE", "64", "DATA.RESIZE", "native", "DATA.BATCH_SIZE", "8", "SOLVER.TOTAL_EPOCH", "4",
         "SOLVER.AMP", "off", "MODEL.TRANSFER_TYPE", "prompt+lora", "OUTPUT_DIR", str(out), *pairs],
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(small, photos, tmp_path_factory):
    torch.manual_seed(0)
    torch.save(timm.create_model(NAME, num_classes=0).state_dict(), photos / "weights.pth")
    cfg = settings(photos, tmp_path_factory.mktemp("finished"))
    run(cfg, run_folder(cfg))
    return cfg, run_folder(cfg)


@pytest.fixture
def call(capsys):
    def call(tool, *args) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(args, tool.main([str(arg) for arg in args]), *capsys.readouterr())

    return call


def test_a_run_learns_and_records_its_pixels(finished):
    cfg, folder = finished
    result = read_json(folder.result)
    assert result["test"]["top1"] > 0.9
    assert (result["pixels"]["resize"], result["pixels"]["patch"], result["pixels"]["size"]) == (
        "native",
        [16, 16],
        [64, 64],
    )
    assert result["pixels"]["augment"] == "crop_flip"
    assert evaluate_run(folder, cfg)["loss"] == pytest.approx(result["test"]["loss"], rel=1e-6)


def test_an_interrupted_run_goes_on_to_the_same_result(finished, photos, tmp_path, monkeypatch):
    _, whole = finished
    cfg = settings(photos, tmp_path)
    interrupted_at(monkeypatch, [5])
    with pytest.raises(Interrupted):
        run(cfg, run_folder(cfg))
    run(cfg, run_folder(cfg), resume=True)
    same_result(whole.path, run_folder(cfg).path)


@pytest.mark.parametrize("pairs", [("MODEL.TRANSFER_TYPE", "partial-1"), ("MODEL.TRANSFER_TYPE", "linear")])
def test_a_frozen_prefix_is_computed_once(finished, photos, tmp_path, pairs, caplog):
    kept, each = (
        settings(photos, tmp_path / way, *pairs, "DATA.AUGMENT", "none", "DATA.CACHE_FEATURES", way)
        for way in ("auto", "off")
    )
    with caplog.at_level("INFO"):
        results = [run(cfg, run_folder(cfg)) for cfg in (kept, each)]
    assert caplog.text.count("computed once") == 1
    assert results[0]["test"]["loss"] == pytest.approx(results[1]["test"]["loss"], rel=1e-4)


def test_the_tools_take_it_or_say_why_not(finished, photos, tmp_path, call):
    _, folder = finished
    done = call(predict, folder.path, photos / "test", "--batch", 5)
    lines = done.stdout.strip().splitlines()[1:]
    assert len(lines) == 16
    right = sum(Path(line.split(",")[0]).parent.name == line.split(",")[1] for line in lines)
    assert right / 16 == read_json(folder.result)["test"]["top1"]
    assert (
        call(attention, folder.path, photos / "test/0/0.png", photos / "test/2/1.png", "--to", tmp_path).returncode == 0
    )
    wide, tall = (
        np.array(image["tuned"]["rollout"]).shape for image in read_json(tmp_path / "attention.json")["images"]
    )
    assert wide != tall
    done = call(robustness, folder.path, "--shift", "noise")
    assert "sees every image in its own aspect ratio" in done.stderr
    done = call(export, folder.path, "--to", "torch-export")
    assert "would know the grid of one" in done.stderr


@torch.inference_mode()
def test_served_models_share_stages(finished, photos):
    _, folder = finished
    models = Models([folder.path], [], Limits())
    one, two = (models.load(folder.path, name) for name in ("one", "two"))
    files = sorted((photos / "test").rglob("*.png"))[::3]
    seen = torch.stack([one.pixels.input(file.read_bytes()) for file in files])
    images = one.pixels.batch([one.pixels.prepare(file.read_bytes()) for file in files])
    rows = [torch.tensor([0, 1, 2]), torch.tensor([1, 4])]
    assert one.inside
    assert one.stages_agree
    for answer, own in zip(compute(images, [(one, rows[0]), (two, rows[1])]), rows, strict=True):
        torch.testing.assert_close(answer, one.tuned.model(seen[own]).double(), rtol=1e-5, atol=1e-5)


def test_what_folds_runs_in_plain_timm_on_a_picture(finished, photos, tmp_path, call):
    cfg = settings(photos, tmp_path / "lora", "MODEL.TRANSFER_TYPE", "lora", "SOLVER.TOTAL_EPOCH", "1")
    run(cfg, run_folder(cfg))
    done = call(export, run_folder(cfg).path, "--to", "timm", "--out", tmp_path / "plain")  # which runs what it prints
    assert done.returncode == 0, done.stderr
    assert '"patch_valid"' in done.stdout
