"""Published figures: their tables are whole, their means are what they say, and what differs from ours is said."""

import copy
import csv

import pytest

from src.data.tasks import TASKS
from src.models.vit_backbones.zoo import find_backbone
from src.models.vit_models import parse
from src.tools.report import published
from src.tools.report.protocol import recipe_named

STUDY = {
    "test": {"top1": 0.7},
    "epochs": 100,
    "epoch_used": 100,
    "seed": 42,
    "data": {
        "task": "cifar100",
        "layout": "noah",
        "version": "VTAB-1k folder cifar, JPEG",
        "notes": ["images come from a VTAB-1k folder re-encoded as JPEG: not the original pixels"],
    },
    "pixels": dict(
        size=[224, 224], augment="none", mean=[0.0] * 3, std=[1.0] * 3, resize="squash", interpolation="bicubic",
        antialias=True, auto_augment="", color_jitter=0.0, random_erasing=0.0, mixup=0.0, cutmix=0.0, jpeg_quality=0,
    ),
    # LoRA's on CIFAR-100, from the study's own files.
    "config": {
        "DATA.FEATURE": "sup_vitb16_imagenet21k", "DATA.NAME": "cifar100", "DATA.BATCH_SIZE": 64,
        "DATA.DROP_LAST": True, "MODEL.TRANSFER_TYPE": "lora",
        "MODEL.HEAD_INIT": "linear", "MODEL.LORA.RANK": 1, "MODEL.LORA.ALPHA": 0.0,
        "MODEL.LORA.TARGETS": ["attn.qkv"], "MODEL.LORA.DROPOUT": 0.1, "SOLVER.OPTIMIZER": "adamw", "SOLVER.EPS": 1e-8,
        "SOLVER.BASE_LR": 0.01, "SOLVER.WEIGHT_DECAY": 0.0001, "SOLVER.DECAY": "all", "SOLVER.SCHEDULER": "timm",
        "SOLVER.SCHEDULE_LATE": True, "SOLVER.WARMUP_EPOCH": 10, "SOLVER.TOTAL_EPOCH": 100, "SOLVER.WARMUP_LR": 1e-6,
        "SOLVER.MIN_LR": 1e-5, "SOLVER.DROP_PATH": 0.1,
    },
}  # fmt: skip


def rows(name):
    with open(published.FOLDER / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def study(epoch="last"):
    (one,) = [
        one for one in published.find("vtab-1k", ["LoRA"]) if "OSU" in one.source and one.protocol["epoch"] == epoch
    ]
    return one


def test_every_name_in_the_tables_is_known():
    figures, sources = rows("figures"), {row["source"] for row in rows("sources")}
    own = {
        *published.GROUPS, "mean of 3 groups", "mean of 19 tasks", "mean of 5 tasks", "gain", "baseline",
        "mean (which one is not stated)",
    }  # fmt: skip
    assert {row["task"] for row in figures} - own <= TASKS.keys()
    assert {row["source"] for row in figures} == sources
    assert {row["benchmark"] for row in figures} == set(published.BENCHMARKS)
    assert {row["method"] for row in figures} == {row["method"] for row in rows("methods")}
    assert all(0 < float(row["percent"]) < 100 for row in figures)
    keys = [tuple(row[key] for key in ("source", "method", "backbone", "task")) for row in figures]
    assert len(keys) == len(set(keys))


def test_our_names_of_methods_and_backbones_exist():
    for row in rows("methods"):
        if row["ours"]:
            methods, _, freqfit = row["ours"].partition("+")
            parse(methods, freqfit)
    for row in rows("backbones"):
        if row["ours"]:
            find_backbone(row["ours"])


def test_printed_means_are_those_of_the_tasks():
    checked = 0
    for name in ("vtab-1k", "fgvc"):
        for row in published.find(name):
            for mean, value in published.means(row.values).items():
                assert row.values[mean] == pytest.approx(value, abs=0.11), (row.method, row.source, mean)
                checked += 1
    assert checked > 200


def test_both_means_of_the_study_are_there_and_right():
    lora = study()
    assert lora.values["cifar100"] == 70.21
    assert lora.values["mean of 3 groups"] == pytest.approx(75.24, abs=0.005)
    assert lora.values["mean of 19 tasks"] == pytest.approx(72.91, abs=0.005)
    assert lora.params_millions == pytest.approx(0.553, abs=0.0005)
    assert study("best on test").values["mean of 19 tasks"] == pytest.approx(73.60, abs=0.005)


def test_the_one_mean_that_is_printed_among_others_is_kept_apart():
    (full,) = [one for one in published.find("vtab-1k", ["Full (FFT)"])]
    assert full.values["mean of 19 tasks"] == 67.8
    assert full.values["mean of 3 groups"] == pytest.approx(71.1, abs=0.05)
    assert "F2" in full.protocol["caution"]


def test_names_are_theirs_or_ours():
    theirs = published.find("vtab-1k", ["freqfit-lora"])
    assert theirs == published.find("VTAB-1k".lower(), ["lora+freqfit"], "sup_vitl16") != []
    assert theirs[0].values["cifar100"] == 86.5
    assert published.find("fgvc", ["SSF"], "ViT-B/16 sup IN-21k AugReg")[0].values["mean of 5 tasks"] == 90.7
    assert published.find("many-shot", ["block"], "dino_vitb16")[0].values == {"cifar100-full": 82.72}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vtab",), "unknown benchmark: 'vtab'; the nearest: vtab-1k"),
        (("vtab-1k", ["ConvPas"]), "nearest: convpass"),
        (("vtab-1k", [], "ViT-B/15 sup IN-21k"), "nearest: vit-b/16 sup in-21k"),
    ],
)
def test_unknown_names_say_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        published.find(*arguments)


def test_a_sweep_names_what_it_repeats():
    spec = {"METHOD": ["LoRA", "FreqFit-LoRA"], "BACKBONE": "ViT-L/16 sup IN-21k", "SOURCE": "FreqFiT"}
    assert [one.method for one in published.named(spec)] == ["LoRA", "FreqFit-LoRA"]
    with pytest.raises(ValueError, match="no published figures fit"):
        published.named(spec | {"SOURCE": "no such paper"})
    with pytest.raises(ValueError, match="unknown key of PUBLISHED: 'methods'"):
        published.named({"METHODS": "LoRA"})


def test_the_same_protocol_differs_in_nothing():
    assert published.factors([STUDY], study()) == []


def test_what_differs_is_said():
    ours = copy.deepcopy(STUDY)
    ours["pixels"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "antialias": False}
    ours["pixels"]["interpolation"] = "bilinear"
    ours["data"] = {"task": "cifar100", "layout": "tfds", "version": "3.0.2", "notes": []}
    ours["config"]["DATA.FEATURE"] = "sup_vitl16"
    found = {factor: (mine, theirs) for factor, mine, theirs in published.factors([ours, ours | {"seed": 44}], study())}
    assert found == {
        "pixels": ("224 x 224, squash, bilinear, not antialiased", "224 x 224, squash, bicubic, antialiased"),
        "normalisation": ("imagenet", "none"),
        "seeds": ("2 (42 44)", "1 (42)"),
        "data": ("original files (3.0.2)", "re-encoded as JPEG"),
        "checkpoint": ("sup_vitl16_imagenet21k", "sup_vitb16_imagenet21k"),
    }
    said = published.reasons([ours], study("best on test"))
    assert "epoch that is tested: ours last; theirs best on test" in said
    assert "normalisation: ours imagenet; theirs none" in said


@pytest.mark.parametrize(
    ("key", "value", "factor", "mine", "its"),
    [
        ("SOLVER.OPTIMIZER", "sgd", "optimizer", "sgd, momentum 0.9", "adamw, epsilon 1e-08"),
        ("SOLVER.EPS", 0.0, "optimizer", "adamw, epsilon 1e-06", "adamw, epsilon 1e-08"),
        ("SOLVER.BASE_LR", 0.001, "learning_rate", "0.001", "0.01"),
        ("SOLVER.WEIGHT_DECAY", 0.001, "weight_decay", "0.001", "0.0001"),
        ("SOLVER.DECAY", "vpt", "decayed", "vpt", "all"),
        ("SOLVER.MIN_LR", 0.0, "schedule", "timm, 10 epochs of warm-up from 1e-06, to 0, late", None),
        ("SOLVER.SCHEDULER", "constant", "schedule", "constant, 10 epochs of warm-up from 1e-06, late", None),
        ("SOLVER.SCHEDULE_PER", "step", "schedule", "timm, 10 epochs of warm-up from 1e-06, to 1e-05, per step", None),
        ("SOLVER.TOTAL_EPOCH", 110, "epochs", "110", "100"),
        ("SOLVER.COOLDOWN_EPOCH", 10, "epochs", "100 and 10 of cooldown", "100"),
        ("DATA.BATCH_SIZE", 32, "batch", "32, whole ones only", "64, whole ones only"),
        ("DATA.DROP_LAST", False, "batch", "64", "64, whole ones only"),
        ("SOLVER.DROP_PATH", 0.0, "drop_path", "0", "0.1"),
        ("SOLVER.EMA", 0.999, "optimizer", "adamw, epsilon 1e-08, averaged with 0.999", "adamw, epsilon 1e-08"),
        ("MODEL.HEAD_INIT", "zero", "head_start", "zero", "linear"),
        ("MODEL.LORA.RANK", 8, "settings", None, None),
    ],
)
def test_settings_that_differ_are_said_with_both_values(key, value, factor, mine, its):
    ours = copy.deepcopy(STUDY)
    ours["config"][key] = value
    ((found, said, theirs),) = published.factors([ours], study())
    assert (found, said if mine else None, theirs if its else None) == (factor, mine, its)
    if key == "MODEL.LORA.RANK":
        assert ("RANK 8" in said, "RANK 1," in theirs, said.replace("RANK 8", "RANK 1")) == (True, True, theirs)


def test_settings_are_compared_task_by_task():
    """The study's LoRA has 0.01 on CIFAR-100 and 0.001 on DTD, as well as the other way round on others."""
    dtd = copy.deepcopy(STUDY)
    dtd["data"]["task"] = dtd["config"]["DATA.NAME"] = "dtd"
    found = {factor: (mine, theirs) for factor, mine, theirs in published.factors([STUDY, dtd], study())}
    assert found["learning_rate"] == ("0.01", "0.001")
    swapped = copy.deepcopy(STUDY)
    swapped["config"]["SOLVER.BASE_LR"] = 0.001
    found = {factor: (mine, theirs) for factor, mine, theirs in published.factors([swapped, dtd], study())}
    assert found["learning_rate"] == ("0.001 on cifar100, 0.01 on dtd", "0.01 on cifar100, 0.001 on dtd")


def test_what_is_stated_without_a_recipe_is_compared_too():
    (theirs,) = [one for one in published.find("vtab-1k", ["Bi-LoRA-32"])]
    found = {factor: (mine, its) for factor, mine, its in published.factors([STUDY], theirs)}
    assert found["learning_rate"] == ("0.01", "0.001")
    assert found["settings"][1] == "not stated"
    assert "schedule" not in found


def test_recipes_of_sources_exist_and_have_their_rows():
    figures = rows("figures")
    for row in rows("sources"):
        its = {(one["method"], one["backbone"]) for one in figures if one["source"] == row["source"]}
        for name in row["recipe"].split():
            said = recipe_named(name).published
            assert its & {(one.method, one.backbone) for one in published.named(said)}, (row["source"], name)


def test_jpeg_of_the_key_counts_as_jpeg():
    ours = copy.deepcopy(STUDY)
    ours["data"] = {"task": "cifar100", "layout": "tfds", "version": "3.0.2", "notes": []}
    ours["pixels"]["jpeg_quality"] = 75
    assert published.factors([ours], study()) == []


def test_what_a_source_does_not_say_is_no_agreement():
    (theirs,) = [one for one in published.find("vtab-1k", ["PSOFT r=46"])]
    assert published.reasons([STUDY], theirs)[-1].startswith("not stated for theirs: resized images, normalisation")


def test_cifar_is_cautioned_where_the_data_path_decides():
    (freqfit,) = published.find("vtab-1k", ["FreqFit-LoRA"])
    assert any("F3" in reason for reason in published.reasons([STUDY], freqfit))
