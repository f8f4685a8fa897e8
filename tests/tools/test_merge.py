"""``vitune merge``: what it writes is a plain timm model with the run's logits, or it writes nothing."""

import json
import os
import subprocess

import pytest
import timm
import torch
from conftest import randomise
from paths import ROOT
from programs import run_program
from runs import QUICK, learned, quick, run_as_printed
from timm.models.vision_transformer import VisionTransformer

from src.configs.config import load_cfg
from src.data.pixels import Pixels
from src.engine.checkpoint import Tuned, load_tuned
from src.engine.run import run
from src.models.merge import Merged
from src.models.vit_backbones.backbone import IMAGENET
from src.models.vit_backbones.build import create_vit, timm_arguments
from src.models.vit_backbones.zoo import MODEL_ZOO
from src.models.vit_models import TunedViT, parse
from src.tools.export import plain
from src.tools.merge import __main__ as merge
from src.utils.io import read_json


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run's folder."""
    settings = ["MODEL.TRANSFER_TYPE", "block+rlrr+lora+ssf", "MODEL.BLOCK.SPLIT", "2", "SOLVER.TOTAL_EPOCH", "1"]
    settings += ["DATA.CROPSIZE", "32"]
    cfg, folder = quick(tmp_path_factory.mktemp("finished"), *settings)
    run(cfg, folder)
    return folder.path


@pytest.fixture
def main(capsys):
    def call(*args) -> subprocess.CompletedProcess:
        status = merge.main([str(arg) for arg in args])
        return subprocess.CompletedProcess(args, status, *capsys.readouterr())

    return call


def load_as_printed(text: str) -> torch.nn.Module:
    """The model that is loaded by the Python that the tool ends with."""
    model = run_as_printed(text, ROOT / "docs/pages/pictures/digits.png")["model"]
    assert type(model) is VisionTransformer
    return model


@pytest.mark.parametrize("out", ["folder", "a.b/model", "file.safetensors", "file.pth", "file.pt"])
def test_plain_timm_loads_what_was_merged(finished, tmp_path, main, out, images):
    done = main(finished, tmp_path / out)
    assert done.returncode == 0, done.stderr
    model = load_as_printed(done.stdout)
    assert len(model.blocks) == 6  # four, and two new ones
    torch.testing.assert_close(model(images), load_tuned(finished).model(images), atol=1e-5, rtol=1e-5)
    assert not list(tmp_path.rglob("*.partial"))


def test_it_is_a_command(finished, tmp_path):
    command = ["-m", "src.tools.merge"]
    shown = run_program(*command, "--help").stdout
    assert "vitune merge RUN_DIR merged/digits" in shown
    done = run_program(*command, finished, tmp_path / "out.pth")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_folder_says_how_images_are_prepared_and_what_classes_are_called(tmp_path, main):
    path = learned(tmp_path, "MODEL.TRANSFER_TYPE", "lora")
    assert main(path, tmp_path / "out").returncode == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert list(model.pretrained_cfg["label_names"]) == [f"number {i}" for i in range(10)]
    data = timm.data.resolve_model_data_config(model)
    assert (data["input_size"], data["interpolation"], data["crop_mode"]) == ((3, 32, 32), "bilinear", "center")
    assert (tuple(data["mean"]), tuple(data["std"]), data["crop_pct"]) == (*IMAGENET, 7 / 8)


@pytest.mark.parametrize("size", ["[32, 48]", "[16, 64]"])  # the second has as many patches as 32 x 32
@pytest.mark.parametrize("out", ["folder", "file.pth"])
def test_other_image_sizes_are_merged_too(tmp_path, main, size, out):
    path = learned(tmp_path, "MODEL.TRANSFER_TYPE", "rlrr", "DATA.IMAGE_SIZE", size)
    images = torch.randn(2, 3, *json.loads(size))
    done = main(path, tmp_path / out)
    assert done.returncode == 0, done.stderr
    model = load_as_printed(done.stdout)
    torch.testing.assert_close(model(images), load_tuned(path).model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("methods", ["linear", "end2end", "partial-2+cls", "difffit+fact_tt", "block+tinytl-bias"])
def test_what_trains_the_vits_own_weights_is_merged(tmp_path, main, methods, images):
    path = learned(tmp_path, "MODEL.TRANSFER_TYPE", methods)
    done = main(path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    model = load_as_printed(done.stdout)
    torch.testing.assert_close(model(images), load_tuned(path).model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["MODEL.TRANSFER_TYPE", "lora", "FREQFIT", "freqfit"], "freqfit cannot be merged: blocks.0 is a Block"),
        (["MODEL.TRANSFER_TYPE", "prompt+block"], "prompt cannot be merged: blocks.0 is a Block"),
        (["MODEL.TRANSFER_TYPE", "lora+adapter"], "adapter cannot be merged: blocks.0.mlp is a Mlp"),
        (["MODEL.TRANSFER_TYPE", "adaptformer"], "adaptformer cannot be merged: blocks.0.mlp is a Mlp"),
        (["MODEL.TRANSFER_TYPE", "vqt"], "vqt cannot be merged: it changes the pooled features"),
        (["MODEL.TRANSFER_TYPE", "side"], "side cannot be merged: it changes the pooled features"),
        (["MODEL.TRANSFER_TYPE", "lora", "MODEL.MLP_NUM", "2"], "has 2 hidden layers (MODEL.MLP_NUM)"),
    ],
)
def test_what_cannot_fold_is_named_and_nothing_is_written(tmp_path, main, settings, says):
    path = learned(tmp_path, *settings)
    done = main(path, tmp_path / "out")
    assert done.returncode == 1
    assert says in done.stderr
    assert os.listdir(tmp_path) == ["run"]


def test_a_merged_model_with_other_logits_is_not_written(finished, tmp_path, main, monkeypatch):
    def wrong(model):
        return Merged({k: 1.001 * v for k, v in original(model).state.items()})

    original = plain.merged
    monkeypatch.setattr(plain, "merged", wrong)
    done = main(finished, tmp_path / "out")
    assert done.returncode == 1
    assert "lora+rlrr+ssf+block cannot be merged: the logits would differ" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["out", "out.pth"])
def test_what_exists_is_overwritten_only_if_asked(finished, tmp_path, main, out):
    assert main(finished, tmp_path / out).returncode == 0
    before = sorted((p, p.stat().st_ino) for p in tmp_path.rglob("*"))
    done = main(finished, tmp_path / out)
    assert done.returncode == 1
    assert "exists and is not overwritten" in done.stderr
    assert sorted((p, p.stat().st_ino) for p in tmp_path.rglob("*")) == before
    assert main(finished, tmp_path / out, "--force").returncode == 0
    after = sorted((p, p.stat().st_ino) for p in tmp_path.rglob("*"))
    assert [path for path, _ in after] == [path for path, _ in before]
    assert after != before


def test_force_spares_what_is_no_merged_model(finished, tmp_path, main):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("mine")
    for out, says in (("folder.pth", "is a folder,"), ("file", "is a file,"), ("photos", "a folder with me.jpg in it")):
        done = main(finished, tmp_path / out, "--force")
        assert done.returncode == 1
        assert says in done.stderr
    assert (tmp_path / "file").read_text() == (tmp_path / "photos" / "me.jpg").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["nowhere", "out"], 1, "nowhere is missing"),
        (["RUN", "out", "MODEL.MODEL_ROOTT", "x"], 2, "did you mean MODEL.MODEL_ROOT"),
        (["RUN", "out", "MODEL.MODEL_ROOT", "nowhere"], 1, "it comes with ViTune: set MODEL.MODEL_ROOT"),
    ],
)
def test_user_errors_end_with_one_clear_line(finished, tmp_path, main, monkeypatch, args, status, says):
    monkeypatch.chdir(tmp_path)
    done = main(*(finished if arg == "RUN" else arg for arg in args))
    assert done.returncode == status
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_timm_builds_every_row_of_the_zoo_from_its_arguments(name):
    """Deeper, where blocks are in one row, and for images of another size than the architecture's own."""
    row = MODEL_ZOO[name]
    size = (64, 96) if name == "vit_micro_glyphs" else (224, 448)
    with torch.device("meta"):
        vit = create_vit(row, size)
        depth = len(vit.blocks) + 2 if hasattr(vit, "blocks") else 0
        architecture, arguments = timm_arguments(name, vit, size, depth)
        built = timm.create_model(architecture, num_classes=0, **json.loads(json.dumps(arguments)))
    if depth:
        assert len(built.blocks) == depth
        del built.blocks[-2:]
        assert (built.global_pool, built.patch_embed.grid_size) == (vit.global_pool, vit.patch_embed.grid_size)
    wanted = {name: tensor.shape for name, tensor in vit.state_dict().items()}
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == wanted
    for ours, theirs in zip(vit.modules(), built.modules(), strict=True):
        if not isinstance(ours, (timm.layers.DropPath, torch.nn.Identity)):
            assert type(ours) is type(theirs)
            assert getattr(ours, "eps", 0) == getattr(theirs, "eps", 0)


@pytest.mark.parametrize(
    ("feature", "methods", "size"),
    [
        ("clip_vitb32", "block+lora", (96, 64)),
        ("mae_vitb16", "rlrr", (32, 64)),
        ("dinov2_vits14_reg", "block", (28, 42)),
        ("timm:convnext_pico", "ssf", (64, 96)),
    ],
)
def test_backbones_of_every_kind_come_back_from_a_folder(feature, methods, size, tmp_path):
    """Cut to two blocks, with random weights: the published ones are not there."""
    if row := MODEL_ZOO.get(feature):
        with torch.device("meta"):
            vit = create_vit(row, size)
        vit.blocks = vit.blocks[:2]
        vit.to_empty(device="cpu")
        for name, param in vit.named_parameters():
            torch.nn.init.normal_(param, float("norm" in name and name.endswith("weight")), 0.02)
    else:
        vit = timm.create_model(feature.removeprefix("timm:"))
    cfg = load_cfg("", [*QUICK, "DATA.FEATURE", feature, "DATA.CROPSIZE", "224", "MODEL.TRANSFER_TYPE", methods])
    model = TunedViT(vit, parse(methods), cfg.MODEL, 7).eval()
    randomise(model, 0.02)
    images = torch.randn(2, 3, *size)
    logits = model(images)
    plain.write(plain.merge(Tuned(model, cfg, list("abcdefg"), Pixels(size, "none", *IMAGENET))), tmp_path / "out")
    again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(again(images), logits, atol=1e-4, rtol=1e-4)
    config = read_json(tmp_path / "out" / "config.json")
    assert again.num_features == config["num_features"]
    assert config["pretrained_cfg"]["crop_mode"] == "squash"
