"""What a config leaves to the framework (-1, auto) suits the method and the number of images, and is written down."""

import logging
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from src.configs.config import ConfigError, load_cfg
from src.engine.logistic import _fit
from src.engine.results import run_folder
from src.engine.run import evaluate_run, run
from src.solver.lr_scheduler import Schedule
from src.utils.io import read_json, read_json_lines

FOLDER = "configs/folder.yaml"


def schedule(images: int, *settings: str) -> Schedule:
    solver = load_cfg(FOLDER, settings).SOLVER
    return Schedule(solver, math.ceil(images / 32))


@pytest.mark.parametrize("images", [16, 50, 160, 800, 5_000, 40_000])
@pytest.mark.parametrize(("method", "least"), [("lora", 300), ("linear", 2000)])
def test_small_folders_get_more_epochs_and_large_ones_ten(images, method, least):
    settings = ["MODEL.TRANSFER_TYPE", method, "SOLVER.OPTIMIZER", "adamw"]
    made = schedule(images, *settings)
    assert made.total_steps >= least
    fewer = (made.epochs - 1) * made.steps_per_epoch
    assert made.epochs == 10 or fewer < least
    rates = [made(epoch, step) for epoch in range(made.epochs) for step in range(made.steps_per_epoch)]
    assert max(rates) == pytest.approx(load_cfg(FOLDER, settings).SOLVER.BASE_LR, rel=1e-2)
    assert rates[-1] < 1e-3 * max(rates), "the cosine ends with the run, however many epochs that took"


def test_what_suits_is_written_down_and_can_be_overridden():
    linear = load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", "linear"])
    assert (linear.DATA.AUGMENT, linear.SOLVER.OPTIMIZER, linear.SOLVER.DECAY) == ("none", "lbfgs", "none")
    trained = load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", "linear", "DATA.AUGMENT", "flip"])
    assert (trained.MODEL.HEAD_INIT, trained.SOLVER.OPTIMIZER, trained.SOLVER.MIN_STEPS) == ("zero", "adamw", 2000)
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


def test_a_number_of_epochs_or_steps_on_the_command_line_is_what_is_done():
    assert load_cfg(FOLDER, ["SOLVER.TOTAL_EPOCH", "3"]).SOLVER.MIN_STEPS == 0
    assert load_cfg(FOLDER, ["SOLVER.TOTAL_EPOCH", "3", "SOLVER.MIN_STEPS", "50"]).SOLVER.MIN_STEPS == 50
    assert load_cfg(FOLDER, ["SOLVER.MAX_STEPS", "60"]).SOLVER.MIN_STEPS == 0
    assert schedule(16, "SOLVER.TOTAL_EPOCH", "3").epochs == 3


def test_a_misspelt_method_is_the_only_problem():
    with pytest.raises(ConfigError) as error:
        load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", "loar"])
    assert len(str(error.value).splitlines()) == 2
    assert "did you mean lora?" in str(error.value)


def test_why_the_head_is_trained_is_said(caplog):
    load_cfg(FOLDER, ["MODEL.TRANSFER_TYPE", "linear", "SOLVER.EMA", "0.9"])
    assert "logistic regression, which has no place for SOLVER.EMA" in caplog.text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["SOLVER.OPTIMIZER", "sgd"], "SOLVER.BASE_LR -1 is for SOLVER.OPTIMIZER adamw"),
        (["SOLVER.OPTIMIZER", "lbfgs"], "which has no place for MODEL.TRANSFER_TYPE lora, random augmentation"),
        (
            ["SOLVER.MAX_STEPS", "10", "SOLVER.MIN_STEPS", "5"],
            "SOLVER.MAX_STEPS and SOLVER.MIN_STEPS do not go together",
        ),
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
            "MODEL.TRANSFER_TYPE", "linear", "SOLVER.OPTIMIZER", "adamw", "SOLVER.MIN_STEPS", "400",
            "SOLVER.AMP", "off", "DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "out"),
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


@pytest.mark.parametrize(
    ("images", "channels", "classes", "scale"), [(120, 10, 4, 1.0), (60, 80, 3, 0.02), (300, 6, 5, 9)]
)
def test_lbfgs_finds_what_scikit_learn_finds(images, channels, classes, scale):
    """With the penalty that was chosen, on features of any size: the smallest value of the same function."""
    noise = np.random.RandomState(images)
    labels = noise.permutation(np.arange(images) % classes)
    x = scale * (noise.randn(images, channels) + 0.8 * noise.randn(classes, channels)[labels] + 3)
    train, val = ((x[part], labels[part]) for part in (slice(None, None, 2), slice(1, None, 2)))
    mean, std = train[0].mean(0), train[0].std()
    inputs = [((some - mean) / std, target) for some, target in (train, val)]
    weight, penalty, _ = _fit(*((torch.tensor(some).float(), torch.tensor(target)) for some, target in inputs), classes)
    theirs = LogisticRegression(C=1 / (penalty * len(train[1])), max_iter=20_000, tol=1e-10).fit(*inputs[0])

    def value(matrix: np.ndarray, bias: np.ndarray) -> float:
        loss = log_loss(train[1], softmax(inputs[0][0] @ matrix.T + bias, axis=1), labels=range(classes))
        return loss + penalty / 2 * (matrix**2).sum()

    smallest = value(theirs.coef_, theirs.intercept_)
    assert value(weight[:, :-1].double().numpy(), weight[:, -1].double().numpy()) == pytest.approx(smallest, abs=1e-4)
    assert smallest < 0.5 * np.log(classes), "the classes can be told apart"


def test_the_head_alone_is_fitted_and_comes_back(tmp_path):
    """A run on the digits: as good as scikit-learn's, nothing to resume, and its saved head answers alike."""
    pairs = ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32", "DEVICE", "cpu"]
    pairs += ["MODEL.TRANSFER_TYPE", "linear", "DATA.TRAIN_SPLIT", "train", "OUTPUT_DIR", str(tmp_path)]
    cfg = load_cfg(FOLDER, [*pairs, "SOLVER.AMP", "off"])
    result = run(cfg, run_folder(cfg))
    assert result["test"]["top1"] > 0.95  # scikit-learn's has 96.6 %
    assert result["penalty"]["chosen_on"] == "val"
    assert evaluate_run(run_folder(cfg), cfg)["top1"] == result["test"]["top1"]
    assert not run_folder(cfg).last.exists()
    assert [row["val_top1"] for row in read_json_lines(run_folder(cfg).metrics)] == [result["val"]["top1"]]
