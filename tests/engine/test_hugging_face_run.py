"""A run on a checkpoint of transformers, and what comes after it."""

import json

import pytest
import transformers
from paths import ROOT
from runs import quick

from src.configs.config import load_cfg
from src.engine.checkpoint import load_tuned
from src.engine.run import run
from src.tools.export import __main__ as export
from src.tools.list import __main__ as listing
from src.tools.merge import __main__ as merge
from src.tools.predict import __main__ as predict

PICTURE = str(ROOT / "docs/pages/pictures/digits.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder of save_pretrained; its layer norms have an epsilon for which timm has no setting, 1e-12."""
    folder = tmp_path_factory.mktemp("checkpoints") / "vit-tiny"
    sizes = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48)
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=4, initializer_range=0.1)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    pairs = ["DATA.FEATURE", f"hf:{checkpoint}", "MODEL.TRANSFER_TYPE", "lora", "SOLVER.TOTAL_EPOCH", "1"]
    cfg, folder = quick(tmp_path_factory.mktemp("runs"), *pairs)
    run(cfg, folder)
    return folder.path


def test_the_run_has_the_folders_name_and_the_checkpoints_pixels(finished):
    assert finished.parts[-3:-1] == ("hf-vit-tiny", "lora")
    assert load_tuned(finished, []).pixels.mean == (0.1, 0.2, 0.3)


def test_it_merges_into_timms_network(finished, tmp_path, capsys):
    assert merge.main([str(finished), str(tmp_path / "merged")]) == 0, capsys.readouterr().err
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["model_args"]["embed_dim"] == 24


def test_dinov3_trains_and_merges(tmp_path, capsys):
    """Its rotary positions make it one of timm's Eva."""
    sizes = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48)
    config = transformers.DINOv3ViTConfig(**sizes, image_size=16, patch_size=4, num_register_tokens=4)
    transformers.DINOv3ViTModel(config).save_pretrained(tmp_path / "dinov3")
    pairs = ["DATA.FEATURE", f"hf:{tmp_path / 'dinov3'}", "MODEL.TRANSFER_TYPE", "lora", "SOLVER.TOTAL_EPOCH", "1"]
    cfg, folder = quick(tmp_path / "runs", *pairs)
    run(cfg, folder)
    assert merge.main([str(folder.path), str(tmp_path / "merged")]) == 0, capsys.readouterr().err


def test_its_card_names_no_path(finished, tmp_path, capsys):
    assert export.main(["--to", "hub-folder", "--out", str(tmp_path / "hub"), str(finished)]) == 0
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "`hf:vit-tiny`" in card
    assert str(tmp_path.parent) not in card


def test_it_classifies_pictures(finished, capsys):
    assert predict.main([str(finished), PICTURE]) == 0
    assert PICTURE in capsys.readouterr().out


def test_its_methods_are_listed(checkpoint, capsys):
    command = ["methods", "--format", "json", "DATA.FEATURE", f"hf:{checkpoint}", "DATA.CROPSIZE", "16"]
    assert listing.main(command) == 0
    rows = {row["MODEL.TRANSFER_TYPE"].split(", ")[-1]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["bitfit"][f"on hf:{checkpoint}"] == f"{2 * (3 * 24 + 24 + 48 + 24 + 2 * 24) + 24 + 24:,}"


def test_a_broken_checkpoint_is_a_problem_of_the_config(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"DATA\.FEATURE .*holds no config\.json"):
        load_cfg("", ["DATA.NAME", "digits", "DATA.FEATURE", f"hf:{tmp_path}"])
