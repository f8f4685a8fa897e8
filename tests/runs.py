"""Short runs on the digits, trained or made up, for tests of what comes before, during and after a run."""

import os
import random
import signal
from pathlib import Path

import torch
from conftest import randomise
from safetensors import safe_open

from src.configs.config import load_cfg
from src.data.pixels import Pixels
from src.engine import trainer
from src.engine.checkpoint import save_tuned
from src.engine.results import run_folder
from src.models.vit_backbones.backbone import IMAGENET
from src.models.vit_models import build_model
from src.utils.io import read_json, read_json_lines

# A tenth of the digits, hardly larger than they are, three epochs: half a second a run.
QUICK = [
    "DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "12", "DATA.PERCENTAGE", "0.1",
    "DATA.PIXELS", "backbone", "SOLVER.OPTIMIZER", "adamw", "SOLVER.BASE_LR", "0.003", "SOLVER.WARMUP_EPOCH", "1",
    "SOLVER.TOTAL_EPOCH", "3", "SOLVER.SCHEDULE_PER", "step", "MODEL.SIDE.WEIGHTS", "", "MODEL.PROMPT.DEEP", "True",
    "MODEL.SPT_LORA.BUDGET", "0.02", "MODEL.SPT_ADAPTER.BUDGET", "0.02",
]  # fmt: skip


def quick(tmp_path, *pairs):
    cfg = load_cfg("", [*QUICK, "OUTPUT_DIR", str(tmp_path), *pairs])
    return cfg, run_folder(cfg)


def same_result(one: Path, other: Path) -> None:
    a, b = read_json(one / "result.json"), read_json(other / "result.json")
    assert a["test"] == b["test"]
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in read_json_lines(p / "metrics.jsonl")]
        for p in (one, other)
    ]
    assert rows[0] == rows[1]
    with safe_open(one / "tuned.safetensors", "pt") as f, safe_open(other / "tuned.safetensors", "pt") as g:
        assert all(torch.equal(f.get_tensor(name), g.get_tensor(name)) for name in f.keys())


# Dropout, augmentation, momentum, early stopping: all that a resumed run could forget.
SETTINGS = [
    *QUICK, "MODEL.TRANSFER_TYPE", "prompt+lora", "MODEL.PROMPT.DROPOUT", "0.3", "FREQFIT", "freqfit",
    "SOLVER.TOTAL_EPOCH", "4", "DATA.AUGMENT", "crop_flip", "DATA.BATCH_SIZE", "8", "DATA.TRAIN_SPLIT", "train",
    "SOLVER.PATIENCE", "3", "DATA.NO_TEST", "True",
]  # fmt: skip


def interrupted_at(monkeypatch, steps: list[int]):
    """Let the process hear a signal during each of these steps, counted over all calls."""
    count = iter(range(10**6))
    honest = trainer.TrainingStep.__call__

    def step(self, *args):
        if next(count) in steps:
            os.kill(os.getpid(), random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
        return honest(self, *args)

    monkeypatch.setattr(trainer.TrainingStep, "__call__", step)


def learned(tmp_path, *pairs) -> Path:
    """What a run with these settings would have saved, had it learned something random."""
    cfg = load_cfg("", [*QUICK, "DATA.CROPSIZE", "32", *pairs])
    model = build_model(cfg, 10).eval()
    randomise(model)
    size = tuple(cfg.DATA.IMAGE_SIZE) or (cfg.DATA.CROPSIZE, cfg.DATA.CROPSIZE)
    names = [f"number {i}" for i in range(10)]
    save_tuned(
        tmp_path / "run" / "tuned.safetensors", model, cfg, names, Pixels(size, "crop_flip", *IMAGENET, resize="crop")
    )
    return tmp_path / "run"


def run_as_printed(text: str, photo: Path) -> dict:
    """Run the Python that the tool ends with on an image file; the names it leaves."""
    lines = [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]
    code = "\n".join(lines)
    assert code.count("'photo.jpg'") >= 1
    names: dict = {}
    with torch.no_grad():
        exec(code.replace("'photo.jpg'", repr(str(photo))), names)
    return names
