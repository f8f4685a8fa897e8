"""Real photographs and a real pre-trained ViT through the door that users use, where they are at hand.

REAL_DIR names their folder, with weights/dinov2_vits14_pretrain.pth and signs/{train,test}.
"""

import csv
import os
from pathlib import Path

import pytest
import timm
from programs import run_program

from src.utils.io import read_json

REAL = Path(os.environ.get("REAL_DIR", "real")).absolute()
WEIGHTS = REAL / "weights" / "dinov2_vits14_pretrain.pth"
pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(not (WEIGHTS.is_file() and (REAL / "signs").is_dir()), reason="REAL_DIR names no real pictures"),
]

TRAIN, TEST = 12, 12  # images of each of the ten hand signs


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A few of the signs, as links; training images have names that sort before others."""
    root = tmp_path_factory.mktemp("real") / "signs"
    for split, count in (("train", TRAIN), ("test", TEST)):
        for label in sorted(path.name for path in (REAL / "signs" / split).iterdir() if path.is_dir()):
            (root / split / label).mkdir(parents=True)
            for image in sorted((REAL / "signs" / split / label).iterdir())[:count]:
                (root / split / label / image.name).symlink_to(image)
    return root


def call(*arguments: object) -> str:
    done = run_program(*arguments, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def tuned(photos: Path, method: str, out: Path) -> tuple[dict, Path]:
    call(
        "train.py", "--config-file", "configs/folder.yaml", "DATA.DATAPATH", photos, "DATA.FEATURE", "dinov2_vits14",
        "MODEL.MODEL_ROOT", WEIGHTS.parent, "DATA.CROPSIZE", 56, "MODEL.TRANSFER_TYPE", method, "OUTPUT_DIR", out,
        "SOLVER.AMP", "off", "SOLVER.MIN_STEPS", 60 if method == "lora" else -1, "DEVICE", "cpu",
    )  # fmt: skip
    (path,) = out.rglob("result.json")
    return read_json(path), path.parent


def test_linear_probing_learns_real_hand_signs(photos, tmp_path):
    result, _ = tuned(photos, "linear", tmp_path)
    assert result["test"]["images"] == 10 * TEST
    assert result["test"]["top1"] > FLOOR["linear"]


def test_lora_learns_more_of_them_predicts_and_is_exported(photos, tmp_path):
    result, folder = tuned(photos, "lora", tmp_path / "out")
    assert result["test"]["top1"] > FLOOR["lora"]
    call("-m", "src.tools.predict", folder, photos / "test", "--to", tmp_path / "answers.csv")
    with open(tmp_path / "answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(Path(row["file"]).parent.name == row["class"] for row in rows)
    assert len(rows) == 10 * TEST
    assert abs(right / len(rows) - result["test"]["top1"]) <= 1 / len(rows), "predict is the run's own answer"
    call("-m", "src.tools.export", folder, "--to", "timm", "--out", tmp_path / "exported")
    vit = timm.create_model(f"local-dir:{tmp_path / 'exported'}", pretrained=True).eval()
    assert vit.num_classes == 10


FLOOR = {"linear": 0.30, "lora": 0.45}  # a tenth is chance
