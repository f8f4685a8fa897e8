"""``vitune export``: what it writes gives the run's logits where nothing of this project is known."""

import html
import io
import os
import re
import subprocess
import sys

import pytest
import timm
import torch
import yaml
from paths import ROOT
from PIL import Image
from runs import learned, quick, run_as_printed
from scipy.stats import binomtest

from src.data.pixels import Pixels, pixels_from
from src.engine.checkpoint import load_tuned
from src.engine.run import run
from src.models.vit_backbones.backbone import IMAGENET
from src.tools.export import __main__ as export
from src.tools.export import from_files, hub, network, onnx_file, program
from src.tools.export import work as export_work
from src.tools.export.card import plain
from src.tools.report.stats import wilson
from src.utils.io import read_json

WHOLE = ["MODEL.TRANSFER_TYPE", "prompt", "FREQFIT", "freqfit", "DATA.IMAGE_SIZE", "[32, 48]"]

# What someone without this project does with the files.
ELSEWHERE = """
import json, sys, numpy, onnxruntime, timm, torch
images = torch.load("images.pt")
answers = {}
session = onnxruntime.InferenceSession("whole/model.onnx")
for count in (1, 4):
    (logits,) = session.run(None, {"images": images[:count].numpy()})
    answers[f"onnx {count}"] = torch.from_numpy(logits)
said = session.get_modelmeta().custom_metadata_map
assert json.loads(said["class_names"]) == [f"number {i}" for i in range(10)], said
assert json.loads(said["size"]) == [32, 48] and len(json.loads(said["mean"])) == 3, said
model = torch.export.load("model.pt2", extra_files=(about := {"about.json": ""})).module()
assert json.loads(about["about.json"])["probabilities"] == "softmax"
answers["pt2"] = model(images)
folded = timm.create_model("local-dir:folded", pretrained=True).eval()
answers["timm"] = folded(images[..., :32])
assert not any(name.split(".")[0] == "src" for name in sys.modules)
torch.save(answers, "answers.pt")
"""


@pytest.fixture
def main(capsys):
    def call(*args) -> subprocess.CompletedProcess:
        status = export.main([str(arg) for arg in args])
        return subprocess.CompletedProcess(args, status, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of peft's, with its result."""
    settings = ["MODEL.TRANSFER_TYPE", "peft", "MODEL.PEFT.TYPE", "LORA", "SOLVER.TOTAL_EPOCH", "1"]
    settings += ["DATA.CROPSIZE", "32"]
    cfg, folder = quick(tmp_path_factory.mktemp("finished"), *settings)
    run(cfg, folder)
    return folder.path


@pytest.mark.slow
def test_every_format_is_loaded_where_this_project_is_not(finished, tmp_path, main):
    whole = learned(tmp_path, *WHOLE)
    for args in (
        (whole, "--to", "hub-folder", "--out", tmp_path / "whole"),
        (whole, "--to", "torch-export", "--out", tmp_path / "model.pt2"),
        (finished, "--to", "hub-folder", "--out", tmp_path / "folded"),
    ):
        done = main(*args)
        assert done.returncode == 0, done.stderr
        names = run_as_printed(done.stdout, ROOT / "docs/pages/pictures/digits.png")
        tuned = load_tuned(args[0])
        with torch.inference_mode():
            logits = tuned.model(tuned.pixels.input((ROOT / "docs/pages/pictures/digits.png").read_bytes())[None])
        torch.testing.assert_close(torch.as_tensor(names["logits"]), logits, atol=1e-3 * logits.abs().max(), rtol=0)
    images = torch.randn(4, 3, 32, 48)
    torch.save(images, tmp_path / "images.pt")
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True)
    answers = torch.load(tmp_path / "answers.pt")
    with torch.inference_mode():
        wanted = load_tuned(whole).model(images)
        of_finished = load_tuned(finished).model(images[..., :32])
    atol = 1e-4 * wanted.abs().max().item()
    torch.testing.assert_close(answers["onnx 4"], wanted, atol=atol, rtol=0)
    torch.testing.assert_close(answers["onnx 1"], wanted[:1], atol=atol, rtol=0)
    torch.testing.assert_close(answers["pt2"].detach(), wanted, atol=atol, rtol=0)
    torch.testing.assert_close(answers["timm"].detach(), of_finished, atol=1e-5, rtol=1e-5)
    assert {p.name for p in (tmp_path / "whole").iterdir()} == {"README.md", "config.json", hub.ONNX, hub.TUNED}
    assert (tmp_path / "folded" / "peft" / "adapter_config.json").is_file()
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "Unknown: there is no result.json" in card
    assert "onnxruntime.InferenceSession('model.onnx')" in card


def test_the_card_is_written_from_the_run(finished, tmp_path, main):
    assert main(finished, "--to", "hub-folder").returncode == 0
    text = (finished / "export" / "hub" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    result, said = read_json(finished / "result.json"), yaml.safe_load(head)
    top1, images = result["test"]["top1"], result["test"]["images"]
    (measured,) = said["model-index"][0]["results"][0]["metrics"]
    assert measured["value"] == pytest.approx(top1, abs=1e-6)
    assert (said["library_name"], said["license"]) == ("timm", "apache-2.0")
    low, high = wilson(top1, images)
    assert f"| {100 * top1:.2f} % | {100 * low:.2f} to {100 * high:.2f} % |" in body
    parameters = result["parameters"]
    assert f"{parameters['trained'] - parameters['head']:,}, and {parameters['head']:,} in the head" in body
    for text in ("peft", "LORA", "epochs", "32 pixels high", "Licence", "local-dir:.", "PeftModel"):
        assert text in body
    assert str(finished.parent) not in text
    config = read_json(finished / "export" / "hub" / "config.json")
    assert config["label_names"] == result["class_names"]


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "[a](javascript:b)", "a\n\n# b", "`*c*`", "a|b", "&lt;"]
)
def test_a_card_shows_names_and_does_nothing_else(name):
    """By commonmark's rules: no tag, link, code, emphasis, heading or cell is left."""
    said = plain(name)
    assert "<" not in said
    assert "\n" not in said
    assert not re.search(r"(?<!\\)[\[\]`*|]", said)
    assert " ".join(name.split()) == html.unescape(re.sub(r"\\(.)", r"\1", said))


@pytest.mark.parametrize(("right", "images"), [(785, 797), (0, 10), (10, 10), (1, 3)])
def test_wilsons_interval_is_scipys(right, images):
    known = binomtest(right, images).proportion_ci(method="wilson")
    assert wilson(right / images, images) == pytest.approx((known.low, known.high))


def test_what_does_not_fold_is_no_timm_model(tmp_path, main):
    done = main(learned(tmp_path, "MODEL.TRANSFER_TYPE", "lora+adapter"), "--to", "timm")
    assert done.returncode == 1
    assert "adapter cannot be merged" in done.stderr
    assert "--to onnx" in done.stderr
    assert os.listdir(tmp_path / "run") == ["tuned.safetensors"]


@pytest.mark.parametrize("wrong", [lambda x: 1.001 * x, lambda x: x[:1], lambda x: x * float("nan")])
def test_a_file_with_other_logits_is_refused(finished, wrong):
    made = network.network_of(load_tuned(finished))
    assert network.check(made, made.module, "it") <= 1e-5
    with pytest.raises(ValueError, match=r"it (was not written: its logits differ|gives \(1, 10\) for 2 images)"):
        network.check(made, lambda images: wrong(made.module(images)), "it")


ANY = dict(size=(224, 224), augment="none", mean=IMAGENET[0], std=IMAGENET[1], antialias=True)
PIPELINES = {
    "folder": dict(resize="crop"),
    "squash": dict(resize="squash", interpolation="bicubic"),
    "squash_crop": dict(resize="squash_crop", interpolation="bicubic"),
    "vpt": dict(resize="squash", decoder="tf", interpolation="bilinear_tf1", antialias=False),
    "vpt, cropped": dict(resize="crop", interpolation="bilinear_tf1", antialias=False),
    "TensorFlow 2": dict(resize="crop", decoder="tf", antialias=False),
    "as JPEG": dict(resize="squash", decoder="tf", jpeg_quality=75),
    "float32": dict(resize="squash_crop", antialias=False, dtype="float32"),
    "float32, antialiased": dict(resize="crop", interpolation="bicubic", dtype="float32"),
    "an earlier version": dict(resize="crop", enlarged=None),
}


EVERY = [("folder", side) for side in (32, 48, 96, 160, 224, 256, 320, 384, (32, 48), (224, 96))]


@pytest.mark.parametrize(("name", "side"), EVERY + [(name, side) for name in PIPELINES for side in (160, (48, 32))])
def test_printed_lines_make_the_runs_pixels_at_every_size(name, side, tmp_path):
    size = side if isinstance(side, tuple) else (side, side)
    said = ANY | PIPELINES[name] | {"size": size}
    if name == "an earlier version":
        del said["enlarged"]
    pixels = pixels_from(said) if name == "an earlier version" else Pixels(**said)
    made = from_files.with_pillow(pixels)
    for i, raw in enumerate(from_files._photos(size)):
        (tmp_path / f"{i}").write_bytes(raw)
        names: dict = {}
        exec("\n".join(made.lines).replace("'photo.jpg'", repr(str(tmp_path / f"{i}"))), names)
        wanted, levels = pixels.input(raw), 255 * torch.tensor(pixels.std).view(3, 1, 1)
        differ = (torch.from_numpy(names["images"])[0] - wanted).abs() * levels
        exact = pixels.antialias and pixels.dtype == "uint8"
        assert differ.max() <= (0.001 if exact else 1.001)
        assert differ.mean() <= (0.001 if exact else 0.1)
        if from_files.timm_prepares(pixels):
            transform = timm.data.create_transform(
                (3, *size),
                interpolation=pixels.interpolation,
                mean=pixels.mean,
                std=pixels.std,
                crop_pct=from_files.crop_pct(pixels),
                crop_mode=from_files.crop_mode(pixels),
            )
            with Image.open(io.BytesIO(raw)) as image:
                assert ((transform(image.convert("RGB")) - wanted).abs() * levels).max() < 0.001
    expected = name in ("folder", "squash", "squash_crop", "an earlier version")
    cropped_to_a_square = pixels.resize != "crop" or size[0] == size[1]
    assert from_files.timm_prepares(pixels) == (expected and cropped_to_a_square)


def test_a_file_that_sees_other_pixels_does_not_stay(finished, tmp_path, main, monkeypatch):
    monkeypatch.setattr("src.tools.export.plain.crop_pct", lambda pixels: 0.95)
    done = main(finished, "--to", "timm", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "its pixels differ from the run's by" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("to", "out"), [("timm", "a.pth"), ("onnx", "a.onnx"), ("hub-folder", "hub")])
def test_what_exists_is_overwritten_only_if_asked(finished, tmp_path, main, monkeypatch, to, out):
    for name in ("write_onnx", "write_hub", "write", "check"):
        monkeypatch.setattr(export_work, name, lambda *args: 0.0)
    other = tmp_path / out
    other.mkdir() if to == "hub-folder" else other.write_text("before")
    assert "exists and is not overwritten" in main(finished, "--to", to, "--out", other).stderr
    assert main(finished, "--to", to, "--out", other, "--force").returncode == 0
    if to == "hub-folder":
        (other / "mine.txt").write_text("mine")
        assert "a folder with mine.txt in it" in main(finished, "--to", to, "--out", other, "--force").stderr


def test_large_weights_lie_beside_the_onnx_file(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "ONE_FILE", 1000)
    made = network.network_of(load_tuned(finished))
    assert onnx_file.write_onnx(made, tmp_path / "large.onnx") < 1e-4
    assert sorted(os.listdir(tmp_path)) == ["large.onnx", "large.onnx.data"]
    images = made.images(2)
    torch.testing.assert_close(
        onnx_file.runner(tmp_path / "large.onnx")(images), made.module(images), atol=1e-4, rtol=0
    )


def test_missing_packages_are_said_before_anything_is_read(main, monkeypatch):
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else True)
    done = main("nowhere", "--to", "onnx")
    assert done.returncode == 1
    assert "needs onnxscript" in done.stderr
    assert program.ABOUT == "about.json"  # as the README says
