"""vitune fit: from a folder to a model and a promise, with nothing that was tested near a choice."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from src.cli import main
from src.configs.files import ConfigError
from src.data.sources.base import DataError
from src.tools.fit import fitted
from src.tools.fit import work as working
from src.tools.fit.budget import enough_minutes, exceeded, seconds_left
from src.tools.fit.evidence import calibration
from src.tools.fit.findings import findings, leaks
from src.tools.fit.folds import folds, share
from src.tools.fit.heads import average, choose, nested
from src.tools.fit.images import open_images
from src.tools.fit.look import SIDE, TWINS, Look, alike, groups_of, look
from src.tools.fit.plan import FEWEST_HELD, GO_ON, LEAST_STEPS, RECIPES, roles, rounds
from src.tools.fit.promise import promise
from src.tools.fit.report import summary
from src.tools.fit.request import Clock, Request, make_folder
from src.tools.fit.view import View
from src.utils.io import read_json
from src.utils.signals import Interrupted

STEPS = ["--steps", "140", "DATA.CROPSIZE", "12"]


def digit(i: int) -> Image.Image:
    """The i-th digit on white, 24 x 24 pixels."""
    grey = (255 - DIGITS.images[i] * 255 / 16).astype(np.uint8)
    return Image.fromarray(grey).resize((24, 24), Image.Resampling.BICUBIC)


DIGITS = load_digits()


def write(folder, chosen, split=""):
    for i in chosen:
        path = folder / split / f"digit {DIGITS.target[i]}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        digit(i).save(path)
    return folder


def same(folder):
    folder.mkdir(parents=True)
    for name in ("one.png", "two.png"):
        digit(0).save(folder / name)


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """(Images, folder of a finished fit): 160 digits to learn from, 60 to test, 4 of which are leaked."""
    place = tmp_path_factory.mktemp("fit")
    photos = write(write(place / "photos", range(160), "train"), range(160, 220), "test")
    for i in range(4):
        label = DIGITS.target[i]
        digit(i).resize((40, 40)).save(photos / "test" / f"digit {label}" / f"again {i}.png")
    assert main(["fit", str(photos), "--out", str(place / "out"), *STEPS]) == 0
    return photos, place / "out"


def test_a_folder_becomes_a_model_and_a_promise(fit, capsys):
    photos, out = fit
    found = read_json(out / "fit.json")
    expected, test = found["promise"], found["test"]
    page = (out / "fit.html").read_text(encoding="utf-8")
    assert f"{100 * expected['low']:.1f} % to {100 * expected['high']:.1f} %" in page
    assert page.count("<img ") > 8  # the leaked pairs at least
    assert expected["low"] < expected["expected"] < expected["high"]
    assert (test["leaked"], test["images"]) == (4, 60)
    assert any(finding["code"] == "leak" and finding["number"] == 4 for finding in found["findings"])
    with open(out / "answers.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for basis, part, images in (
        (expected["basis"], expected["expected"], expected["images"]),
        ("test", test["top1"], 60),
    ):
        own = [row for row in rows if row["basis"] == basis and "again" not in row["file"]]
        assert np.mean([row["label"] == row["predicted"] for row in own]) == pytest.approx(part)
        assert len(own) == images
    assert np.sum(found["evidence"]["confusion"]) == expected["images"]
    assert main(["fit", str(photos), "--out", str(out), *STEPS]) == 0
    assert expected["text"] in capsys.readouterr().out
    assert main(["predict", str(out / "model"), str(photos / "test" / "digit 7")]) == 0
    assert f"Expect {expected['text'][:4]}" in (out / "hub" / "README.md").read_text()


def test_the_same_folder_takes_no_other_request(fit, capsys):
    photos, out = fit
    assert main(["fit", str(photos), "--out", str(out), *STEPS, "--seed", "1"]) == 2
    assert "seed 42, now 1" in capsys.readouterr().err


def test_nobody_who_is_held_out_is_near_a_choice(fit):
    _, out = fit
    lists = {path.stem: set(path.read_text().splitlines()) for path in (out / "lists").glob("*.txt")}
    assert not lists["held"] & (lists["trying"] | lists["judging"] | lists["developing"])
    assert lists["developing"] == lists["trying"] | lists["judging"]
    assert lists["all"] == lists["developing"] | lists["held"]
    assert not any("test/" in line for line in lists["all"])


def test_it_goes_on_to_the_same_model_however_often_it_is_stopped(fit, tmp_path, monkeypatch):
    photos, out = fit
    honest, stops = Clock.lap, [2, 4, 5, 6]  # each run is stopped after so many parts

    def lap(self, part):
        honest(self, part)
        self.done = getattr(self, "done", 0) + 1
        if stops and self.done == stops[0]:
            stops.pop(0)
            raise Interrupted("SIGTERM")

    monkeypatch.setattr(Clock, "lap", lap)
    command = ["fit", str(photos), "--out", str(tmp_path / "again"), *STEPS]
    assert [main(command) for _ in range(5)] == [75] * 4 + [0]
    once, often = read_json(out / "fit.json"), read_json(tmp_path / "again" / "fit.json")
    for part in ("promise", "choice", "test", "evidence", "findings"):
        assert once[part] == often[part]


def test_in_code(fit):
    photos, out = fit
    result = fitted.fit(photos, steps=140, out=out, quiet=True, data={"cropsize": 12})
    files = sorted((photos / "test" / "digit 3").glob("*.png"))
    answers = result.predict(files)
    same = result.predict([np.asarray(Image.open(file)) for file in files])
    assert [answer.name for answer in answers] == [answer.name for answer in same]
    assert result.promise.low < result.promise.expected
    assert f"{result.promise}" in result.report()
    late = result.content | {"findings": [{"code": "over_budget", "text": "it took long"}]}
    assert "\ntime:   it took long\n" in summary(late, out)


# ---- the parts


def test_groups_stay_together_and_classes_are_spread():
    random = np.random.RandomState(0)
    labels, groups = random.randint(5, size=300), random.randint(120, size=300)
    parts = folds(labels, groups, 5, seed=1)
    assert all(len(set(parts[groups == g])) == 1 for g in groups)
    sizes = np.array([np.bincount(labels[parts == i], minlength=5) for i in range(5)])
    assert (sizes.max(0) - sizes.min(0)).max() <= 6
    assert np.array_equal(parts, folds(labels, groups, 5, seed=1))
    held = share(np.array([0, 0, 0, 0, 1]), np.arange(5), 0.25, seed=0)
    assert not held[4]


def test_roles_are_apart_and_cover_all():
    labels = np.arange(400) % 4
    parts = roles(labels, np.arange(400), seed=3)
    assert (parts.trying.astype(int) + parts.judging + parts.held == 1).all()
    assert parts.held.sum() == pytest.approx(100, abs=4)


@pytest.mark.parametrize("steps", [0, 100, 134, 200, 500, 1000, 3000, 10**6])
def test_a_budget_is_never_exceeded(steps):
    plan = rounds(steps, list(RECIPES), developing=600)
    assert plan.total <= steps
    assert bool(plan.final) != bool(plan.why_not)
    if plan.steps[1]:
        assert len(plan.candidates) > GO_ON
    if plan.why_not:
        assert "134" in plan.why_not


def test_the_engine_fits_the_head_that_was_judged(fit, tmp_path):
    from src.engine.probe import fit as solve
    from src.engine.probe import logits
    from src.tools.fit.heads import scaled

    torch = pytest.importorskip("torch")
    random = np.random.RandomState(0)
    x, y = random.randn(90, 8).astype(np.float32), random.randint(3, size=90)
    mine = average(x, y, 3, [0.1, 0.01], x)
    (z,) = scaled(x, x)
    weights = [solve(torch.from_numpy(z), torch.from_numpy(y), p, torch.zeros(3, 9), 500) for p in (0.1, 0.01)]
    theirs = logits(torch.stack(weights).mean(0), torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(mine, theirs, atol=2e-3)


def test_heads_choose_the_better_features_and_average_what_cannot_be_told_apart():
    random = np.random.RandomState(0)
    y = np.arange(120) % 3
    good = (np.eye(3)[y] + random.randn(120, 3) * 0.8).astype(np.float32)
    noise = random.randn(120, 3).astype(np.float32)
    choice = choose([noise, good], y, np.arange(120), 3, seed=0)
    assert choice.view == 1
    assert len(choice.penalties) > 1
    logits, parts, choices = nested([noise], y, np.arange(120), 3, seed=0)
    assert abs((logits.argmax(1) == y).mean() - 1 / 3) < 0.15  # nothing is promised of noise
    assert len(choices) == len(set(parts)) == 10


def test_copies_are_not_counted_as_images_of_their_own():
    right = np.arange(200) % 5 > 0
    alone = promise(right, np.arange(200), "held-out")
    copied = promise(np.repeat(right, 4), np.repeat(np.arange(200), 4), "held-out")
    assert copied.expected == alone.expected
    assert copied.effective == pytest.approx(200, rel=0.02)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.02)


def test_calibration_of_answers_that_are_too_sure():
    found = calibration(np.full(100, 0.95), np.arange(100) < 60)
    assert found["error"] == pytest.approx(0.35)
    assert found["bins"] == [
        {"from": 0.9, "to": 1.0, "images": 100, "confidence": pytest.approx(0.95), "accuracy": 0.6}
    ]


# ---- honest limits


def looked_at(folder, tmp_path):
    images = open_images(folder)
    seen = look(images, tmp_path, 1)
    images = images.take(np.flatnonzero(seen.usable))
    same = alike(seen)
    groups = groups_of(len(images), same.pairs, images.groups)
    return images, groups, findings(images, seen, same, groups)


def test_forged_leaks_and_copies_are_found(tmp_path):
    photos = write(tmp_path / "photos", range(80), "train")
    write(photos, range(100, 130), "test")
    buffer = io.BytesIO()
    leaked = [i for i in range(80) if DIGITS.target[i] == 2][:3]
    for i in leaked:  # larger, brighter and compressed
        digit(i).resize((60, 60)).point(lambda v: min(255, v + 9)).convert("RGB").save(buffer, "JPEG", quality=60)
        (photos / "test" / "digit 2" / f"leak{i}.jpg").write_bytes(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()
    (photos / "train" / "copy of 5").mkdir()
    for path in (photos / "train" / "digit 5").glob("*.png"):
        (photos / "train" / "copy of 5" / path.name).write_bytes(path.read_bytes())
    for i in range(4):
        (photos / "train" / "digit 1" / f"broken {i}.png").write_bytes(b"no image")
    (photos / "train" / "read\nme.txt").touch()
    (photos / "test" / "copy of 5").mkdir()
    digit(150).save(photos / "test" / "copy of 5" / "other.png")  # a copy of nothing, and not to learn from
    images, groups, (facts, said) = looked_at(photos, tmp_path)
    assert {images.files[i] for i in np.flatnonzero(leaks(images, groups))} == {
        f"test/digit 2/leak{i}.jpg" for i in leaked
    }
    found = {finding.code: finding for finding in said}
    assert found["leak"].number == 3
    assert "copy of 5" in found["copied_class"].text
    assert found["copied_class"].number == 1
    assert found["conflict"].number == sum(DIGITS.target[:80] == 5)
    assert found["copied_class"].text.startswith("100 % of the images of copy of 5")
    assert found["broken"].number == 4
    assert found["broken"].text.startswith("4 files are left out")
    assert found["broken"].text.endswith(" and 1 more")
    assert any("read\\nme.txt" in note for note in facts["notes"])
    assert not any("\n" in note for note in facts["notes"])
    assert "few_images" in found
    assert facts["leaked_test_images"] == 3


def test_a_thousand_copies_make_one_group_and_few_pairs():
    picture = np.random.RandomState(0).randint(256, size=(1, SIDE, SIDE, 3))
    pictures = np.concatenate([np.repeat(picture, 1000, 0), 255 - picture]).astype(np.uint8)
    seen = Look(np.ones(1001, bool), [], np.arange(1001, dtype=np.uint64), np.ones((1001, 2), int), pictures)
    found = alike(seen)
    assert len(found.pairs) < 1000 * TWINS
    groups = groups_of(1001, found.pairs, [])
    assert np.array_equal(groups, [0] * 1000 + [1000])
    assert found.typical > 0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: write(f, [i for i in range(60) if DIGITS.target[i] == 4]), "only one class"),
        (lambda f: write(f, range(6)), "6 different pictures"),
        (lambda f: [same(f / name) for name in ("a", "b", "c")], "all 6 images show the same picture"),
        (lambda f: f.mkdir(), "no class folders"),
        (lambda f: None, "is missing"),
    ],
    ids=["one class", "too few", "all the same", "empty", "missing"],
)
def test_what_cannot_be_learned_from_is_refused_with_the_number(make, message, tmp_path):
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=message):
        looked_at(tmp_path / "photos", tmp_path)


def test_a_csv_with_splits_and_groups(tmp_path):
    write(tmp_path / "all", range(30))
    rows = [
        (f"all/digit {DIGITS.target[i]}/{i}.png", f"d{DIGITS.target[i]}", "Testing" if i > 24 else "train", i // 2)
        for i in range(30)
    ]
    text = "Image;Label;split;person\n" + "".join(f"{a};{b};{c};{d}\n" for a, b, c, d in rows)
    (tmp_path / "labels.csv").write_text(text)
    images, groups, _ = looked_at(tmp_path / "labels.csv", tmp_path)
    assert images.class_names == sorted({row[1] for row in rows})
    assert (images.splits == "test").sum() == 5
    assert all(groups[i] == groups[i + 1] for i in range(0, 30, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,boxes\na.png,1 2 3 4\n", "no column label.*not fitted yet"),
        ("image,label\na.png,x\na.png,y\n", "line 3: a.png is y here and x before"),
        ("image,label\na.png,\n", "line 2: the label is empty"),
        ("image,label,split\na.png,x,dev\n", "must be train, val or test"),
        ("image,label\na.png,x\nb.png,y,z\n", "line 3: it does not have the 2 cells"),
        ("image,label\na.png,x\nb.png,y\n", "2 of the 2 images"),
        ("", "is empty"),
        ("image,label\n", "its first line alone"),
    ],
)
def test_a_broken_csv_is_refused_with_the_line(text, message, tmp_path):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "labels.csv")


def of_digits(folder, rows):
    """A CSV of digits: (number, label, split, group)."""
    write(folder / "all", range(60))
    lines = [f"all/digit {DIGITS.target[i]}/{i}.png,{label},{split},{group}\n" for i, label, split, group in rows]
    (folder / "labels.csv").write_text("image,label,split,group\n" + "".join(lines))
    return folder / "labels.csv"


def test_a_test_label_that_cannot_be_matched_stops_it_before_an_image_is_read(tmp_path):
    odd = {50: "D3 ", 51: "catX"}
    rows = [(i, odd.get(i, f"d{DIGITS.target[i]}"), "test" if i > 45 else "train", "") for i in range(60)]
    table, out = of_digits(tmp_path, rows), tmp_path / "out"
    with pytest.raises(DataError, match=r"2 labels .*'D3' \(did you mean 'd3'\?\), 'catX'\. .*2 test images"):
        fitted.fit(table, out=out, quiet=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("group", "message"),
    [(lambda i: DIGITS.target[i] % 4, "60 images in 4 groups"), (lambda i: DIGITS.target[i], "images of two groups")],
)
def test_groups_that_are_classes_are_called_groups(group, message, tmp_path):
    table = of_digits(tmp_path, [(i, f"d{DIGITS.target[i]}", "train", group(i)) for i in range(60)])
    with pytest.raises(DataError, match=f"too few groups: .*{message}"):
        looked_at(table, tmp_path)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"minutes": float("inf")}, "minutes is inf"),
        ({"minutes": 0}, "minutes is 0"),
        ({"minutes": -1.0}, "minutes is -1"),
        ({"minutes": 1, "steps": 3}, "minutes 1 and steps 3"),
        ({"steps": -1}, "must not be below 0"),
        ({"minuts": 1}, "no argument 'minuts'; did you mean 'minutes'"),
        ({"backbones": ["vit_micro_glyhps"]}, "backbones: .*did you mean vit_micro_glyphs"),
        ({"out": __file__}, "is a file: give a folder"),
    ],
)
def test_a_bad_request_is_refused_before_anything_is_read(asked, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fitted.fit(tmp_path / "missing", **asked)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.fit cannot be written to \(Not a directory\): give another folder"):
        make_folder(tmp_path / "file" / "fit")


def test_a_hundred_images_are_too_few_to_hold_some_out():
    assert roles(np.arange(100) % 4, np.arange(100), 0).held.sum() < FEWEST_HELD


def test_the_minutes_that_are_called_enough_are():
    for per_step, spent in ((0.8, 106.3), (0.001, 0.5), (30, 10)):
        enough = enough_minutes(LEAST_STEPS, per_step, spent)
        assert rounds(int(seconds_left(enough, spent) / per_step), list(RECIPES), 300).final
        assert enough == 1 or rounds(int(seconds_left(enough - 1, spent) / per_step), list(RECIPES), 300).why_not


def test_more_time_than_the_budget_is_said():
    parts = {"look": 1.0, "features": 80.0, "candidates": 9.0}
    (found,) = exceeded(0.2, 106.0, parts)
    assert found.text.startswith("it took 1 min 46 s, more than the 12 s that were given")
    assert "features 1 min 20 s" in found.text
    assert exceeded(2, 106.0, parts) == exceeded(None, 106.0, parts) == []


def test_where_the_minutes_run_out_the_final_run_is_shorter_and_stays_so(tmp_path):
    fit = working.Fit(Request(tmp_path, minutes=10), tmp_path, View(600, "seconds", quiet=True))
    plan = rounds(3000, list(RECIPES), developing=300)
    fit.per_step, fit.clock.before = 1.0, 400.0  # of 570 seconds
    assert fit._room(160)
    assert not fit._room(180)
    kept = fit._final_steps(plan)
    assert 168 <= kept <= 170 < plan.final
    fit.clock.before = 560.0
    assert fit._final_steps(plan) == kept
