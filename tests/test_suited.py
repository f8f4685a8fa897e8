"""What a config leaves to the framework (-1, auto) suits the method and the number of images, and is written down."""

import logging
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from src.configs.config import ConfigError, load_cfg
from src.engine.results import run_folder
from src.engine.run import run
from src.solver.lr_scheduler import Schedule
from src.utils.io import read_json, read_json_lines

FOLDER = "configs/folder.yaml"


def schedule(images: int, *settings: str) -> Schedule:
    solver = load_cfg(FOLDER, settings).SOLVER
    return Schedule(solver, math.ceil(images / 32))


@pytest.mark.parametrize("images", [16, 50, 160, 800, 5_000, 40_000])
@pytest.mark.parametrize(("method", "least"), [("lora", 300), ("linear", 2000)])
def test_small_folders_get_more_epochs_and_large_ones_ten(images, method, least):
    made = schedule(images, "MODEL.TRANSFER_TYPE", method)
    assert made.total_steps >= least
    fewer = (made.epochs - 1) * made.steps_per_epoch
    assert made.epochs == 10 or fewer < least
    rates = [made(epoch, step) for epoch in range(made.epochs) for step in range(made.steps_per_epoch)]
    assert max(rates) == pytest.approx(load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", method]).SOLVER.BASE_LR, rel=1e-2)
    assert rates[-1] < 1e-3 * max(rates), "the cosine ends with the run, however many epochs that took"


def test_what_suits_is_written_down_and_can_be_overridden():
    linear = load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", "linear"])
    assert (linear.DATA.AUGMENT, linear.MODEL.HEAD_INIT, linear.SOLVER.MIN_STEPS) == ("none", "zero", 2000)
    tuned = load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", "lora+ssf", "FREQFIT", "freqfit"])
    assert tuned.DATA.AUGMENT == "crop_flip"
    alone = [load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", name]).SOLVER.BASE_LR for name in ("lora", "ssf")]
    assert min(*alone, 0.001) == tuned.SOLVER.BASE_LR, "of methods that train together the most careful"
    own = load_cfg(FOLDER, ["SOLVER.BASE_LR", "0.5", "SOLVER.MIN_STEPS", "0", "DATA.AUGMENT", "flip"])
    assert (own.SOLVER.BASE_LR, own.SOLVER.MIN_STEPS, own.DATA.AUGMENT) == (0.5, 0, "flip")
    for cfg in (linear, tuned):
        written = yaml.safe_load(cfg.dump())
        assert written["SOLVER"]["BASE_LR"] > 0
        assert "auto" not in (written["DATA"]["AUGMENT"], written["MODEL"]["HEAD_INIT"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["SOLVER.OPTIMIZER", "sgd"], "SOLVER.BASE_LR -1 is for SOLVER.OPTIMIZER adamw"),
        (["SOLVER.MAX_STEPS", "10"], "SOLVER.MAX_STEPS and SOLVER.MIN_STEPS do not go together"),
    ],
)
def test_what_cannot_be_chosen_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        load_cfg(FOLDER, settings)


def test_many_short_epochs_do_not_wait_for_the_disk_or_fill_the_screen(tmp_path, caplog):
    """Twelve images: hundreds of epochs of a few milliseconds; all are in metrics.jsonl."""
    noise = np.random.RandomState(0)
    for split, count in (("train", 6), ("test", 2)):
        for label, colour in (("blue", 200), ("dark", 40)):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = (colour + noise.randint(0, 40, (36, 36, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / label / f"{i}.png")
    cfg = load_cfg(
        FOLDER,
        [
            "DATA.DATAPATH", str(tmp_path / "photos"), "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32",
            "MODEL.TRANSFER_TYPE", "linear", "SOLVER.MIN_STEPS", "400", "OUTPUT_DIR", str(tmp_path / "out"),
            "SOLVER.AMP", "off", "DEVICE", "cpu",
        ],
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        result = run(cfg, run_folder(cfg))
    assert result["test"]["top1"] == 1.0
    assert result["epochs"] == 400
    assert len(read_json_lines(run_folder(cfg).metrics)) == 400
    lines = [record for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert 50 <= len(lines) <= 101
    assert lines[-1].getMessage().startswith("epoch 400/400")
    assert read_json(run_folder(cfg).result)["epochs"] == 400
    assert torch.isfinite(torch.tensor(result["train_loss"]))
