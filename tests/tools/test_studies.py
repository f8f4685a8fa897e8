"""wise, robustness and compare on finished runs: their command lines, and their figures recomputed another way."""

import csv
import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image
from sklearn.datasets import load_digits

from src.configs.config import ConfigError, load_cfg
from src.data.shifts import SHIFTS, ShiftedLoader, parse_shift
from src.data.sources.lists import imagenet_synsets
from src.engine.checkpoint import load_tuned
from src.engine.evaluator import accuracy, best_classes, measure
from src.engine.results import RunFolder
from src.engine.run import run
from src.models.merge import merged_state_dict
from src.tools.compare import __main__ as compare
from src.tools.compare import agreement as agree
from src.tools.compare.ensembles import ensembles, vote
from src.tools.finished.command import paths_and_settings
from src.tools.finished.run import labels, open_run, open_runs
from src.tools.finished.sets import open_sets, own_set, parse_sets, read_mapping
from src.tools.robustness import __main__ as robustness
from src.tools.wise import __main__ as wise
from src.tools.wise.curve import curve as curve_of
from src.tools.wise.curve import dominated

DIGITS = ROOT / "configs" / "digits.yaml"
QUICK = ["DATA.TRAIN_SPLIT", "train", "DEVICE", "cpu", "SOLVER.TOTAL_EPOCH", "2", "SOLVER.WARMUP_EPOCH", "1"]
QUICK += ["DATA.PERCENTAGE", "0.5", "DATA.CROPSIZE", "16"]
METHODS = {"linear": "1", "lora": "1", "lora-2": "2", "vqt": "1"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Finished runs on the digits, validated on images that they did not train on."""
    made = {}
    for name, seed in METHODS.items():
        made[name] = tmp_path_factory.mktemp("runs") / name
        rate = "0.02" if name == "linear" else "0.005"
        pairs = ["MODEL.TRANSFER_TYPE", name.split("-")[0], "SEED", seed, "SOLVER.BASE_LR", rate]
        run(load_cfg(DIGITS, [*QUICK, *pairs]), RunFolder(made[name]))
    return made


def read(folder: Path, tool: str) -> dict:
    assert (folder / f"{tool}.md").read_text().startswith("# ")
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 300
    return json.loads((folder / f"{tool}.json").read_text())


def test_wise_goes_from_the_linear_probe_to_the_tuned_run(runs, capsys):
    where = runs["lora"]
    arguments = [where, "--start", runs["linear"], "--shift", "inversion", "noise=0.3", "--alphas", "0 0.5 1"]
    assert wise.main([*map(str, arguments), "DEVICE", "cpu"]) == 0
    found = read(where / "wise", "wise")["curves"][0]
    tested = {name: [at["top1"] for at in values] for name, values in found["test"].items()}
    ends = [json.loads((runs[name] / "result.json").read_text()) for name in ("linear", "lora")]
    assert [tested["digits"][0], tested["digits"][2]] == pytest.approx([end["test"]["top1"] for end in ends])
    validated = [at["top1"] for at in found["validation"]]
    assert [validated[0], validated[2]] == pytest.approx([end["val"]["top1"] for end in ends])
    assert found["chosen"]["index"] == int(np.argmax(validated))
    assert found["mean_shifted"] == pytest.approx(np.mean([tested["inversion 1"], tested["noise 0.3"]], axis=0))
    assert f"{100 * tested['digits'][1]:.2f}" in capsys.readouterr().out

    # Half-way, another way: half of what folds into the ViT, and the mean of both heads.
    tuned, linear = load_tuned(where), load_tuned(runs["linear"])
    folded = merged_state_dict(tuned.model)
    state = {name: value.lerp(folded[name], 0.5) for name, value in linear.model.vit.state_dict().items()}
    linear.model.vit.load_state_dict(state)
    for name, param in linear.model.head.named_parameters():
        param.data.lerp_(tuned.model.head.get_parameter(name), 0.5)
    loader = own_set(open_run(where), "test").loader
    with torch.no_grad():
        logits = torch.cat([linear.model(images) for images, _ in loader.in_order()])
    assert measure(logits, loader.labels).top1 == pytest.approx(tested["digits"][1], abs=1e-6)


def test_wise_of_a_method_that_adds_features_starts_at_the_probe_too(runs, tmp_path, capsys):
    arguments = [runs["vqt"], "--start", runs["linear"], "--alphas", "0,1", "--to", tmp_path]
    assert wise.main(list(map(str, arguments))) == 0
    found = read(tmp_path, "wise")["curves"][0]["test"]["digits"]
    ends = [json.loads((runs[name] / "result.json").read_text())["test"]["top1"] for name in ("linear", "vqt")]
    assert [at["top1"] for at in found] == pytest.approx(ends)


def test_wise_does_not_choose_where_nothing_was_held_out(runs, tmp_path):
    tuned = open_run(runs["linear"], ["DATA.TRAIN_SPLIT", "trainval"])
    curve = curve_of(tuned, open_sets(tuned, []), [0.0, 1.0], None, head_only=False)
    assert curve.chosen is None
    assert curve.validated is None
    assert curve.own[0] == curve.own[1]  # nothing but the head was tuned, and it stays
    with pytest.raises(ValueError, match="random head"):
        curve_of(tuned, open_sets(tuned, []), [0.0], None, head_only=True)
    with pytest.raises(ValueError, match="tuned more than its head"):
        curve_of(tuned, open_sets(tuned, []), [0.0], open_run(runs["lora"]), head_only=False)


def save_digits(folder: Path, keys: list[str], change, names: dict[int, str]) -> None:
    """Some of the digits ("digits/12") as class folders, changed."""
    digits = load_digits()
    for i in (int(key.split("/")[1]) for key in keys):
        if digits.target[i] in names:
            path = folder / names[digits.target[i]] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(change(np.round(digits.images[i] * 255 / 16).astype(np.uint8))).save(path)


def test_a_folder_of_shifted_images_is_scored_as_the_shift_itself(runs, tmp_path):
    keys = own_set(open_run(runs["lora"]), "test").keys
    save_digits(tmp_path / "negatives", keys, lambda image: 255 - image, {i: str(i) for i in range(10)})
    arguments = [runs["lora"], runs["lora-2"], runs["linear"], "--shift", "inversion", "--on", tmp_path / "negatives"]
    assert robustness.main([*map(str, arguments), "--to", str(tmp_path / "out")]) == 0
    rows = read(tmp_path / "out", "robustness")["rows"]
    assert [(row["label"], row["seeds"]) for row in rows] == [("lora", [1, 2]), ("linear", [1])]
    for found in (one for row in rows for one in row["test"]):
        assert found["negatives"]["top1"] == pytest.approx(found["inversion 1"]["top1"], abs=2.1 / 797)
        p, n = found["digits"]["top1"], found["digits"]["images"]
        z = 1.959963985
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert found["digits"]["interval"] == pytest.approx([(middle + s * half) / (1 + z * z / n) for s in (-1, 1)])
    own = json.loads((runs["lora"] / "result.json").read_text())["test"]["top1"]
    assert rows[0]["test"][0]["digits"]["top1"] == pytest.approx(own)


def test_a_set_with_some_classes_is_scored_among_those(runs, tmp_path):
    finished = open_run(runs["lora"])
    keys = own_set(finished, "test").keys
    save_digits(tmp_path / "some", keys, lambda image: image, {1: "One", 7: "seven", 9: "nine"})
    mapping = tmp_path / "names.json"
    mapping.write_text(json.dumps({"one": "1", "seven": "7", "nine": None}))
    with pytest.raises(ValueError, match=r"some has 3 classes that .* does not have: One, nine, seven"):
        open_sets(finished, parse_sets([str(tmp_path / "some")], []))
    own, some = open_sets(finished, parse_sets([f"odd={tmp_path / 'some'}"], []), read_mapping(str(mapping)))
    assert some.name == "odd"
    assert some.classes.tolist() == [1, 7]
    chosen = (own.loader.labels == 1) | (own.loader.labels == 7)
    assert some.about["images_of_other_classes_left_out"] == int((own.loader.labels == 9).sum())
    logits = finished.logits(own.loader, "digits")[chosen][:, [1, 7]]
    expected = (logits.argmax(1) == (own.loader.labels[chosen] == 7).long()).double().mean()
    found = accuracy(finished.best_classes(some.loader, "odd", some.classes), some.loader.labels)
    assert found.top1 == pytest.approx(float(expected))
    assert found.images == int(chosen.sum())
    table = tmp_path / "names.csv"
    table.write_text("one,1\nseven,7\nnine,\n")
    assert read_mapping(str(table)) == {"one": "1", "seven": "7", "nine": None}


def test_a_variant_of_imagenet_is_scored_among_its_classes(tmp_path):
    """ImageNet in class folders, and two of its variants: labels by WordNet id, and by number."""
    random, synsets = np.random.RandomState(0), list(imagenet_synsets())

    def save(folder: Path, label: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.randint(0, 255, (6, 6, 3)) // 4 + label * 3 // 16
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{len(list(folder.iterdir()))}.png")

    for label, synset in enumerate(synsets):
        save(tmp_path / "imagenet/train" / synset, label)
    known = [3, 60, 281, 999]
    for label in known * 3:
        save(tmp_path / "imagenet/val" / synsets[label], label)
        save(tmp_path / "imagenet-r" / synsets[label], label)
        save(tmp_path / "imagenetv2" / str(label), label)
    pairs = [f"DATA.DATAPATH {tmp_path}", "DATA.NAME imagenet-16shot DATA.SHOTS 1 MODEL.TRANSFER_TYPE linear"]
    arguments = [*QUICK, *" ".join(pairs).split(), "DATA.TRAIN_SPLIT", "trainval", "DATA.PERCENTAGE", "1.0"]
    run(load_cfg(DIGITS, arguments), RunFolder(tmp_path / "run"))
    wanted = parse_sets([f"{name}={tmp_path}" for name in ("imagenet-r", "imagenet-v2")], [])
    finished = open_run(tmp_path / "run")
    own, *others = open_sets(finished, wanted)
    assert own.classes is None
    for one in others:
        assert one.classes.tolist() == known
        assert sorted(one.loader.labels.tolist()) == sorted(known * 3)
        logits = finished.logits(one.loader, one.name)
        among = torch.tensor(known)[logits[:, known].argmax(1)]
        found = accuracy(finished.best_classes(one.loader, one.name, one.classes), one.loader.labels)
        assert found.top1 == pytest.approx((among == one.loader.labels).double().mean().item())


def test_what_cannot_be_asked_is_refused_before_anything_is_read(tmp_path, capsys):
    with pytest.raises(ConfigError) as error:
        parse_sets(
            [str(tmp_path / "nowhere"), "digits=" + str(tmp_path), "imagenet-r=" + str(tmp_path / "x")], ["nois"]
        )
    assert all(
        said in str(error.value) for said in ("is not a folder", "give your set another name", "unknown shift 'nois'")
    )
    with pytest.raises(ConfigError, match="given twice"):
        parse_sets([], ["noise=0.2", "noise"])
    with pytest.raises(ValueError, match="a number from 0"):
        parse_shift("noise=-1")
    with pytest.raises(ConfigError, match="--classes"):
        read_mapping(str(tmp_path / "no.json"))
    assert robustness.main(["run", "--shift", "noise=x"]) == 2
    assert robustness.main(["run"]) == 2
    assert wise.main(["run", "--alphas", "0 2"]) == 2
    assert compare.main(["run"]) == 2
    assert wise.main([str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err.splitlines()[-1]
    assert paths_and_settings(["a", "b", "DEVICE", "cpu"]) == (["a", "b"], ["DEVICE", "cpu"])


def test_compare_says_what_its_predictions_say(runs, tmp_path):
    assert compare.main([*map(str, (runs["linear"], runs["lora"], runs["lora-2"])), "--to", str(tmp_path)]) == 0
    found = read(tmp_path, "compare")
    with open(tmp_path / "predictions.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    names = [one["label"] for one in found["runs"]]
    assert names == ["linear, seed 1", "lora, seed 1", "lora, seed 2"]
    answers = {name: np.array([line[name] for line in lines]) for name in names}
    sure = {name: np.array([float(line[f"{name}, probability"]) for line in lines]) for name in names}
    labels = np.array([line["label"] for line in lines])
    for name, one in zip(names, found["runs"], strict=True):
        right = answers[name] == labels
        assert one["top1"] == pytest.approx(right.mean())
        assert one["per_class"]["3"] == pytest.approx(right[labels == "3"].mean())
        bins = np.minimum((sure[name] * 15).astype(int), 14)
        gaps = [abs(right[bins == i].sum() - sure[name][bins == i].sum()) for i in range(15)]
        assert one["calibration_error"] == pytest.approx(sum(gaps) / len(lines), abs=1e-4)
    for i, j in combinations(range(3), 2):
        a, b = answers[names[i]], answers[names[j]]
        assert found["pairs"]["agreement"][i][j] == pytest.approx((a == b).mean())
        chance = sum((a == c).mean() * (b == c).mean() for c in set(labels))
        assert found["pairs"]["expected_agreement"][i][j] == pytest.approx(chance)
        wrong = (a != labels), (b != labels)
        assert found["pairs"]["error_overlap"][i][j] == pytest.approx(
            (wrong[0] & wrong[1]).sum() / (wrong[0] | wrong[1]).sum()
        )
        top = np.argsort(-sure[names[i]], kind="stable")[: round(0.25 * len(lines))]
        assert found["pairs"]["confident_agreement"][i][j] == pytest.approx((a[top] == b[top]).mean(), abs=0.01)
    assert found["oracle"] == pytest.approx(
        np.mean([any(answers[n][k] == labels[k] for n in names) for k in range(797)])
    )
    across, control = found["ensembles"]
    assert (across["size"], across["sets"], control["of"], control["sets"]) == (2, 1, "seeds of lora", 1)
    logits = [
        open_run(runs[name]).logits(own_set(open_run(runs[name]), "test").loader, "digits")
        for name in ("lora", "lora-2")
    ]
    mean = (logits[0] + logits[1]).argmax(1).numpy().astype(str)
    assert control["logits"] == pytest.approx((mean == labels).mean())
    assert compare.main([str(runs["linear"]), str(runs["linear"])]) == 1


def test_agreement_of_answers_worked_out_by_hand():
    def answers(name, *classes):
        return agree.Answers(name, np.eye(3)[list(classes)] * 0.8 + 0.2 / 3, np.array([0, 0, 1, 1, 2, 2]))

    one, other, none = answers("a", 0, 0, 1, 2, 2, 1), answers("b", 0, 1, 1, 2, 2, 0), answers("c", 0, 0, 1, 1, 2, 2)
    assert agree.agreement(one, other) == pytest.approx(4 / 6)
    assert agree.expected_agreement(one, other) == pytest.approx(1 / 3)
    assert agree.expected_agreement_given_class(one, other) == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert agree.error_overlap(one, other) == pytest.approx(2 / 3)
    assert agree.same_errors(one, other) == pytest.approx(1 / 2)
    assert agree.error_overlap(none, none) is None
    assert agree.p_value(one, none) == pytest.approx(0.5)
    assert agree.oracle([one, other]) == pytest.approx(4 / 6)
    assert agree.per_class(other) == [0.5, 0.5, 0.5]
    assert agree.calibration_error(agree.reliability(none)) == pytest.approx(1 - 0.8 - 0.2 / 3)
    tied = replace(one, probabilities=np.full((6, 3), 1 / 3))
    assert tied.most_confident(0.5).tolist() == [True] * 3 + [False] * 3
    assert vote([one, other, none]).tolist() == [0, 0, 1, 2, 2, 0]  # a tie of three: the first of the most probable


def test_ensembles_have_controls_of_their_size():
    def some(count: int, seed: int) -> list[np.ndarray]:
        return list(np.random.RandomState(seed).randn(count, 40, 3))

    logits = {"a": some(3, 1), "b": some(2, 2), "c": some(2, 3), "d": some(1, 4)}
    labels = np.arange(40) % 3
    answers = {
        name: [agree.Answers(name, np.exp(one) / np.exp(one).sum(1, keepdims=True), labels) for one in found]
        for name, found in logits.items()
    }
    found = ensembles(answers, logits)
    assert [(one.of, one.size, one.sets) for one in found] == [
        ("different methods", 4, 1),
        ("different methods", 3, 2 + 1 + 1 + 1),
        ("seeds of a", 3, 1),
    ]
    assert found[2].logits == pytest.approx((sum(logits["a"]).argmax(1) == labels).mean())
    assert found[0].best_member == max(answers[name][0].right.mean() for name in answers)
    found = ensembles({name: answers[name] for name in "ab"}, {name: logits[name] for name in "ab"})
    assert [(one.of, one.size, one.sets) for one in found] == [
        ("different methods", 2, 2),
        ("seeds of a", 2, 3),
        ("seeds of b", 2, 1),
    ]


def test_the_area_counts_what_either_point_dominates():
    assert dominated([(0.5, 1.0), (1.0, 0.5)]) == pytest.approx(0.75)
    assert dominated([(0.5, 1.0), (1.0, 0.5), (0.4, 0.9)]) == pytest.approx(0.75)
    assert dominated([(1.0, 1.0)]) == 1.0


@pytest.mark.parametrize("kind", SHIFTS)
def test_shifts_do_not_depend_on_the_batch(kind, runs):
    loader = own_set(open_run(runs["linear"]), "test").loader
    shifted = ShiftedLoader(loader, parse_shift(kind))
    whole = torch.cat([images for images, _ in shifted.in_order()])
    plain = torch.cat([images for images, _ in loader.in_order()])
    assert not torch.allclose(whole, plain, atol=1e-3)
    parts = [torch.cat([images for images, _ in shifted.in_order((i, 3))]) for i in range(3)]
    for i, part in enumerate(parts):
        torch.testing.assert_close(part, whole[i::3])
    lowest, highest = ((0 - loader.mean) / loader.std).min(), ((1 - loader.mean) / loader.std).max()
    assert whole.min() >= lowest - 1e-5
    assert whole.max() <= highest + 1e-5


def test_labels_tell_runs_apart(runs):
    assert [one.label for one in open_runs([runs["lora"], runs["linear"]])] == ["lora", "linear"]
    finished = open_run(runs["lora"])
    assert labels([finished, finished]) == ["lora (1)", "lora (2)"]
    with pytest.raises(ValueError, match="named twice"):
        open_runs([runs["lora"], runs["lora"] / "."])


def test_best_classes_among_some():
    logits = torch.tensor([[5.0, 1.0, 4.0, 3.0], [0.0, 9.0, 1.0, 2.0]])
    assert best_classes(logits, torch.tensor([1, 3])).tolist() == [[3, 1], [1, 3]]
    metrics = measure(logits, torch.tensor([3, 3]), torch.tensor([1, 3]))
    assert (metrics.top1, metrics.top5, metrics.images) == (0.5, 1.0, 2)
