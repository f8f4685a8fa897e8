"""Forgetting: neighbours and probes against plain recomputation, and the tool on runs, folders and odd data sets."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from runs import quick
from sklearn.linear_model import LogisticRegression

from src.configs.config import load_cfg
from src.data.opened import open_data
from src.engine import probe
from src.engine.checkpoint import load_tuned
from src.engine.knn import knn_accuracies, knn_accuracy, knn_votes
from src.engine.run import run
from src.models.vit_backbones.build import build_backbone
from src.tools import pretrain_demo
from src.tools.finished.run import open_runs
from src.tools.finished.sets import parse_sets
from src.tools.forgetting import __main__ as forgetting
from src.tools.forgetting import old_set as memory
from src.utils.io import read_json


def clouds(count: int, classes: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    centres = torch.randn(classes, 12, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    return centres[labels] + spread * torch.randn(count, 12, generator=random), labels


# --- neighbours


@pytest.mark.parametrize("at_once", [2**26, 7, 400])
def test_neighbours_agree_with_a_loop_over_images(monkeypatch, at_once):
    monkeypatch.setattr("src.engine.knn.AT_ONCE", at_once)  # similarities of no, and of one, image fit
    (bank, labels), (features, truth) = clouds(300, 8, 1), clouds(37, 8, 2)
    found = knn_accuracies(bank, labels, features, truth, 9, (1, 5, 300))
    for k, accuracy in found.items():
        first = fifth = 0
        for feature, right in zip(features.double().numpy(), truth.tolist(), strict=True):
            cosines = bank.double().numpy() @ feature / np.linalg.norm(bank.double(), axis=1) / np.linalg.norm(feature)
            votes = {}
            for i in np.argsort(-cosines)[:k]:
                votes[labels[i].item()] = votes.get(labels[i].item(), 0) + math.exp(cosines[i] / 0.07)
            best = sorted(votes, key=votes.get, reverse=True)
            first, fifth = first + (best[0] == right), fifth + (right in best[:5])
        assert accuracy == pytest.approx({"top1": first / 37, "top5": fifth / 37})
        assert accuracy == knn_accuracy(knn_votes(bank, labels, features, 9, k), truth)


# --- linear probe


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_the_probe_finds_sklearns_minimum(monkeypatch, penalty):
    monkeypatch.setattr(probe, "ROWS", 70)
    features, labels = clouds(300, 4, 1)
    features = features.double()
    weight = probe.fit(features, labels, penalty, torch.zeros(4, 13).double(), 1000)
    theirs = LogisticRegression(C=1 / (penalty * 300), tol=1e-8, max_iter=5000).fit(features.numpy(), labels.numpy())
    torch.testing.assert_close(weight[:, :-1], torch.from_numpy(theirs.coef_), atol=1e-4, rtol=1e-3)
    expected = torch.from_numpy(theirs.predict_log_proba(features.numpy()))
    torch.testing.assert_close(probe.logits(weight, features).log_softmax(1), expected, atol=1e-4, rtol=2e-3)


def test_the_probe_chooses_its_penalty_without_the_test_images():
    (train, labels), (test, truth) = clouds(200, 4, 1, 2.0), clouds(90, 4, 2, 2.0)
    found = probe.linear_probe(train, labels, test, truth, 5)
    assert found["penalty"] in probe.PENALTIES
    assert found["penalty"] == probe.linear_probe(train, labels, test, 3 - truth, 5)["penalty"]
    assert found["top1"] > 0.6
    scaled = probe.linear_probe(100 * train + 7, labels, 100 * test + 7, truth, 5)
    assert scaled["top1"] == pytest.approx(found["top1"], abs=0.02)


@pytest.mark.parametrize("count", [2, 3, 11])
def test_a_probe_on_very_few_images_and_dead_features(count):
    train, labels = torch.ones(count, 3), torch.arange(count) % 2
    train[:, 1] = labels
    found = probe.linear_probe(train, labels, train, labels, 2)
    assert 0 <= found["top1"] <= 1
    assert count < 11 or found["top1"] == 1.0


# --- the tool


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Short runs on digits: one that changes the encoder, one whose head sees more, one that changes nothing."""
    tmp_path, made = tmp_path_factory.mktemp("runs"), {}
    for name, *pairs in (("lora", "SOLVER.BASE_LR", "0.02"), ("vqt",), ("linear", "DATA.NO_TEST", "True")):
        split = ["DATA.TRAIN_SPLIT", "train", "DATA.CACHE_DIR", str(tmp_path / "cache")]
        cfg, folder = quick(tmp_path, "DATA.CROPSIZE", "32", "MODEL.TRANSFER_TYPE", name, *split, *pairs)
        run(cfg, folder)
        made[name] = folder.path
    return made


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """An old data set: bars of 7 widths; 8 images of each to look among, 26 test images, none of them of the last."""
    root, random = tmp_path_factory.mktemp("old"), np.random.RandomState(0)
    for i in range(7):
        for split, count in (("train", 8), ("test", [8, 8, 4, 3, 2, 1, 0][i])):
            (root / split / f"w{i}").mkdir(parents=True)
            for j in range(count):
                bars = (np.arange(40) + random.randint(40)) // (i + 2) % 2
                picture = 60 * bars + random.randint(0, 190, (48, 40))
                Image.fromarray(picture.astype(np.uint8)).save(root / split / f"w{i}" / f"{j}.png")
    (root / "test" / "w6").rmdir()
    return root


def call(*arguments) -> int:
    return forgetting.main([str(argument) for argument in arguments])


def features(vit, folder, cfg):
    """Pooled features and labels of a split, computed here."""
    loaders, _ = folder.loaders(cfg, "cpu")
    found = {}
    for name, loader in loaders.items():
        with torch.inference_mode():
            pooled = [
                vit.forward_head(vit.forward_features(images), pre_logits=True) for images, _ in loader.in_order()
            ]
        found[name] = torch.cat(pooled), loader.labels
    return found


def test_before_and_after_are_those_of_the_two_encoders(runs, stripes, capsys):
    assert call(runs["lora"], runs["vqt"], runs["linear"], "--on", f"bars={stripes}") == 0
    folder = runs["lora"] / "forgetting"
    lora, vqt, linear = read_json(folder / "forgetting.json")["runs"]
    tuned = load_tuned(runs["lora"])
    pairs = ["DATA.NAME", "folder", "DATA.DATAPATH", str(stripes), "DATA.TRAIN_SPLIT", "trainval"]
    cfg = load_cfg("", ["DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32", "DATA.PIXELS", "backbone", *pairs])
    data = open_data(cfg)
    data.splits = {"bank": data.splits["train"], "test": data.splits["test"]}
    frozen = build_backbone("vit_micro_glyphs", "pretrained", (32, 32))
    for vit, what in ((frozen, "before"), (tuned.model.vit, "after")):
        found = features(vit, data, cfg)
        (bank, labels), (test, truth) = found["bank"], found["test"]
        expected = knn_accuracies(bank, labels, test, truth, 7, (1, 5, 10, 20))
        for k, accuracy in expected.items():
            assert lora[what]["knn"][str(k)] == pytest.approx(accuracy)
        assert set(lora[what]["knn"]) == {"1", "5", "10", "20"}  # 56 images to look among
        assert lora[what]["probe"] == pytest.approx(probe.linear_probe(bank, labels, test, truth, 7))
    assert lora["before"] != lora["after"]
    assert vqt["before"] == vqt["after"] == linear["after"] == lora["before"]
    new = read_json(runs["lora"] / "result.json")["test"]["top1"]
    assert lora["mean"] == pytest.approx((new + lora["after"]["knn"]["20"]["top1"]) / 2)
    assert lora["old"]["images"] == {"train": 56, "test": 26}
    assert linear["mean"] is None
    said = capsys.readouterr().out
    assert "Too few training images for k = 100, 200" in said
    assert (folder / "forgetting.png").stat().st_size > 10_000
    assert "| lora |" in (folder / "forgetting.md").read_text()


def test_features_are_computed_once(runs, stripes, tmp_path, monkeypatch):
    what = [runs["lora"], "--on", f"bars={stripes}", "--no-probe", "--k", "3", "--to", tmp_path]
    assert call(*what) == 0
    before = read_json(tmp_path / "forgetting.json")["runs"][0]
    monkeypatch.setattr("src.engine.outputs._compute", lambda *_: pytest.fail("features were computed again"))
    assert call(*what) == 0
    found = read_json(tmp_path / "forgetting.json")["runs"][0]
    assert found == before
    assert (found["report_k"], found["after"]["probe"]) == (3, None)


def test_a_task_in_place_of_a_folder_and_its_own_images(runs, tmp_path):
    images = ["DATA.NORMALIZE", "imagenet", "DATA.RESIZE", "crop"]
    assert call(runs["vqt"], "--on", "digits", "--no-probe", "--to", tmp_path, *images) == 0
    (found,) = read_json(tmp_path / "forgetting.json")["runs"]
    assert found["old"]["images"] == {"train": 1000, "test": 797}
    assert found["old"]["pixels"]["mean"] == [0.485, 0.456, 0.406]
    assert found["old"]["pixels"]["resize"] == "crop"
    assert found["report_k"] == 20


def test_old_images_get_the_runs_mean_and_their_own_tasks_resize(tmp_path, stripes):
    cfg, folder = quick(
        tmp_path,
        "MODEL.TRANSFER_TYPE",
        "linear",
        "DATA.PIXELS",
        "study",
        "DATA.RESIZE",
        "crop",
        "SOLVER.TOTAL_EPOCH",
        "1",
    )
    run(cfg, folder)
    (opened,) = open_runs([folder.path])
    old = memory.open_old(opened, parse_sets([str(stripes)], [])[0])
    assert opened.tuned.pixels.mean == (0.0, 0.0, 0.0)  # the study's, of VTAB-1k's kind of task
    assert (old.bank.images.pixels.mean, old.bank.images.pixels.resize) == ((0.0, 0.0, 0.0), "squash")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--on", "nothing=/nowhere"], 2, "/nowhere is not a folder"),
        (["--on", "cifar10x"], 2, "not a folder, and"),
        (["--on", "imagenet-a=."], 1, "imagenet-a"),
        (["--on", "digits", "--k", "0 5"], 2, "--k '0 5'"),
        (["--on", "digits", "--k", "many"], 2, "whole numbers"),
        (["--on", "digits", "--temperature", "0"], 2, "--temperature 0"),
        (["--on", "digits", "--report-k", "5000"], 2, "has 1000 training images only"),
        (["--on", "digits", "--k", "5000"], 2, "has 1000 training images only"),
        (["--on", "digits", "DATA.CROPSIZE", "64"], 2, "DATA.CROPSIZE cannot be changed"),
        (["--on", "digits", "DATA.RESIZE", "crp"], 2, "DATA.RESIZE is 'crp'"),
        (["--on", "digits", "DATA.RESIZE"], 2, "DATA.RESIZE has no value"),
        (["--on", "digits", "DATA.RESISE", "crop"], 2, "did you mean DATA.RESIZE"),
        (["--on", "configs"], 1, "configs"),
    ],
)
def test_what_cannot_be_is_one_line(runs, capsys, arguments, status, said):
    assert call(runs["vqt"], *arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


def test_features_that_are_no_numbers_are_an_error(runs, stripes, monkeypatch):
    monkeypatch.setattr("src.tools.forgetting.old_set.outputs", lambda *_: torch.full((56, 64), torch.inf))
    (opened,) = open_runs([runs["vqt"]])
    old = memory.open_old(opened, parse_sets([str(stripes)], [])[0])
    with pytest.raises(ValueError, match=r"SOLVER\.AMP off"):
        memory.remembered(memory.tuned_encoder(opened), old, (1,), 0.07, False)


def test_the_demos_letters_are_a_folder_of_class_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_demo, "PICTURES", {"train": 300, "test": 40})
    monkeypatch.setattr(pretrain_demo, "FONTS", {"DejaVuSans": pretrain_demo.CLASSES})
    pretrain_demo.draw_pictures(tmp_path / "letters", 1000)
    assert len(list((tmp_path / "letters" / "train").glob("*/*.png"))) == 300
    assert (tmp_path / "letters" / "test").is_dir()
    with pytest.raises(FileExistsError, match="is not overwritten"):
        pretrain_demo.draw_pictures(tmp_path / "letters", 1000)
