"""``vitune predict``: what it says of files is what the run's evaluation says of them."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import randomise
from PIL import Image
from runs import QUICK

from src.configs.config import load_cfg
from src.data.image_files import find_images
from src.data.pixels import Pixels
from src.data.sources.base import DataError
from src.engine.checkpoint import load_tuned, save_tuned
from src.models.vit_backbones.backbone import HALF
from src.models.vit_models import build_model
from src.tools.export import __main__ as export
from src.tools.finished.run import open_run, open_runs
from src.tools.predict import __main__ as predict
from src.tools.predict.work import spreadsheet_cell
from src.tools.train import __main__ as train
from src.utils.io import read_json

NAMES = [f"number, {i}" for i in range(7)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run with a filter, prompts and pixels of its own saved, had it learned something random."""
    folder = tmp_path_factory.mktemp("run")
    methods = ["MODEL.TRANSFER_TYPE", "prompt+lora", "FREQFIT", "freqfit"]
    cfg = load_cfg("", [*QUICK, *methods, "DATA.CROPSIZE", "32", "DEVICE", "cpu"])
    model = build_model(cfg, len(NAMES)).eval()
    randomise(model)
    pixels = Pixels((32, 32), "none", *HALF, resize="crop", decoder="tf", interpolation="bicubic")
    save_tuned(folder / "tuned.safetensors", model, cfg, NAMES, pixels)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of several kinds and sizes, a broken one, and files that are none."""
    folder, generator = tmp_path_factory.mktemp("photos"), torch.Generator().manual_seed(0)

    def draw(name, mode, size, **settings):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        noise = torch.randint(256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).convert(mode).save(path, **settings)

    draw("b.jpg", "RGB", (80, 40))
    draw("a [1].PNG", "L", (32, 32))
    draw("deep/c.png", "RGBA", (50, 70))
    draw("deep/d.webp", "RGB", (33, 31))
    draw("IMG_0001.JPG", "CMYK", (40, 40))
    (folder / "deep" / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder


@pytest.fixture
def main(capsys):
    def call(*args) -> subprocess.CompletedProcess:
        status = predict.main([str(arg) for arg in args])
        return subprocess.CompletedProcess(args, status, *capsys.readouterr())

    return call


def expected(run, files):
    tuned = load_tuned(run)
    images = torch.stack([tuned.pixels.input(Path(file).read_bytes()) for file in files])
    with torch.inference_mode():
        return tuned.model(images).double().softmax(dim=1)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_stdout_is_csv_with_the_probabilities_that_the_model_gives(run, photos, main):
    done = main(run, photos, "--top", "3", "--probabilities", "--batch", "2")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    files = [str(photos / name) for name in ("IMG_0001.JPG", "a [1].PNG", "b.jpg", "deep/c.png", "deep/d.webp")]
    assert [row["file"] for row in found] == files
    for row, wanted in zip(found, expected(run, files), strict=True):
        order = wanted.argsort(descending=True)
        assert [row["class"], row["class_2"], row["class_3"]] == [NAMES[i] for i in order[:3]]
        given = [float(row[name]) for name in ("probability", "probability_2", "probability_3")]
        torch.testing.assert_close(torch.tensor(given).double(), wanted[order[:3]], atol=2e-6, rtol=1e-5)
        given = [float(row[f"p({name})"]) for name in NAMES]
        torch.testing.assert_close(torch.tensor(given).double(), wanted, atol=2e-6, rtol=1e-5)
    assert "5 of 5 images predicted" in done.stderr


def test_a_fit_stands_for_its_final_model(run, photos, tmp_path, main, capsys):
    """Also where ``export``, ``merge`` and ``--eval-only`` look for a run."""
    (tmp_path / "fit.json").write_text("{}")
    (tmp_path / "model").symlink_to(run)
    found = main(tmp_path, photos / "b.jpg")
    assert (found.returncode, found.stdout) == (0, main(run, photos / "b.jpg").stdout)
    assert open_run(tmp_path).folder.path == tmp_path / "model"
    with pytest.raises(ValueError, match="named twice"):
        open_runs([tmp_path, tmp_path / "model"])
    assert export.main([str(tmp_path), "--to", "timm"]) == 1
    assert "freqfit cannot be" in capsys.readouterr().err  # what was learned has been read
    assert train.main(["--run-dir", str(tmp_path), "--eval-only"]) == 1
    assert f"{tmp_path / 'model' / 'config.yaml'} is missing" in capsys.readouterr().err


def test_json_has_classes_labels_and_what_is_broken(run, photos, tmp_path, main):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:900])
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    out = tmp_path / "out" / "said.json"
    done = main(run, tmp_path / "in", photos / "b.jpg", "--to", out, "--top", "99")
    assert done.returncode == 1
    assert "2 of 3 files are broken" in done.stderr
    said = read_json(out)
    assert said["classes"] == NAMES
    assert [one["file"].rpartition("/")[2] for one in said["broken"]] == ["broken.jpg", "empty.png"]
    (one,) = said["predictions"]
    wanted = expected(run, [photos / "b.jpg"])[0]
    assert one["label"] == wanted.argmax()
    assert one["class"] == NAMES[one["label"]]
    assert sum(rank["probability"] for rank in one["top"]) == pytest.approx(1)
    assert len(one["top"]) == len(NAMES)


def test_sigmoid_runs_give_each_class_a_probability_of_its_own(run, photos, main):
    done = main(run, photos / "b.jpg", "--probabilities", "SOLVER.LOSS", "sigmoid")
    (row,) = rows(done.stdout)
    tuned = load_tuned(run)
    logits = tuned.model(tuned.pixels.input((photos / "b.jpg").read_bytes())[None])[0].detach()
    given = torch.tensor([float(row[f"p({name})"]) for name in NAMES])
    torch.testing.assert_close(given, logits.sigmoid(), atol=1e-5, rtol=1e-4)


def test_files_folders_and_patterns_are_found_once_in_order(photos):
    deep = str(photos / "deep" / "c.png")
    found = find_images([str(photos / "a [1].PNG"), deep, str(photos / "**" / "*.png"), str(photos / "deep")])
    assert [name.removeprefix(f"{photos}/") for name in found] == ["a [1].PNG", "deep/c.png", "deep/d.webp"]
    (photos / "none").mkdir()
    with pytest.raises(DataError, match=r"(?s)nowhere is missing.*none holds no images"):
        find_images([str(photos / "nowhere"), str(photos / "none"), str(photos)])


def test_a_missing_path_is_named_and_the_others_are_predicted(run, photos, tmp_path, main):
    good = photos / "b.jpg"
    done = main(run, photos / "nowhere.png", good, photos / "*.tiff")
    assert done.returncode == 1
    assert [row["file"] for row in rows(done.stdout)] == [str(good)]
    assert f"no predictions for {photos / 'nowhere.png'}, {photos / '*.tiff'}" in done.stderr
    assert main(run, photos / "nowhere.png", good, "--to", tmp_path / "x.json").returncode == 1
    content = json.loads((tmp_path / "x.json").read_text())
    assert [one["file"] for one in content["predictions"]] == [str(good)]
    assert content["broken"] == [{"file": str(photos / "nowhere.png"), "why": "is missing"}]


def test_names_that_are_formulas_can_be_written_for_spreadsheets(run, photos, tmp_path, main, monkeypatch):
    """OWASP's list of first characters (CSV injection)."""
    monkeypatch.chdir(tmp_path)
    for i, first in enumerate("=+-@\t"):
        shutil.copy(photos / "b.jpg", f"{first}{i}.jpg")
    names = sorted(path.name for path in tmp_path.iterdir())
    patterns = [f"./{name}" for name in names]  # so that no option is meant
    assert [row["file"] for row in rows(main(run, *patterns).stdout)] == patterns
    assert [spreadsheet_cell(name) for name in names] == [f"'{name}" for name in names]
    assert spreadsheet_cell("a=b") == "a=b"
    done = main(run, "=0.jpg", "--for-spreadsheets")
    assert [row["file"] for row in rows(done.stdout)] == ["'=0.jpg"]


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["RUN"], 2, "no IMAGES are given"),
        (["RUN", "IMG_9999.JPG"], 1, "IMG_9999.JPG is missing"),
        (["RUN", "PHOTOS", "DEVICEE", "cpu"], 2, "did you mean DEVICE"),
        (["nowhere", "PHOTOS"], 1, "nowhere is missing"),
        (["RUN", "PHOTOS", "--top", "0"], 2, "must be at least 1"),
    ],
)
def test_user_errors_end_with_one_clear_line(run, photos, main, args, status, says):
    done = main(*({"RUN": run, "PHOTOS": photos}.get(arg, arg) for arg in args))
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
