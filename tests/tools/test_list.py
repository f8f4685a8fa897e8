"""vitune list: what there is, in words to pick from."""

import json
import logging
import re

import pytest
from conftest import make_cfg

import train
from src.models.families import FAMILIES, family_of
from src.models.listing import _count
from src.models.vit_backbones.zoo import MODEL_ZOO
from src.models.vit_models import METHODS, config_name
from src.tools.init.work import named
from src.tools.list import __main__ as tool
from src.tools.list import matrix
from src.tools.list.cells import REFUSED
from src.tools.list.configs import configs_table, description
from src.utils.shipped import shipped

CONFIGS = named(shipped("configs"))


def listed(capsys, *arguments: str) -> str:
    assert tool.main([*arguments]) == 0
    return capsys.readouterr().out


def test_methods_are_those_of_list_methods(capsys):
    rows = json.loads(listed(capsys, "methods", "--format", "json", "DATA.FEATURE", "vit_micro_glyphs"))
    assert [row["MODEL.TRANSFER_TYPE"].split(",")[0] for row in rows] == ["linear", *METHODS]
    assert train.main(["--list-methods", "DATA.FEATURE", "vit_micro_glyphs"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[2] for line in lines] == [row["on vit_micro_glyphs"] for row in rows]


def test_config_and_keys_decide_what_methods_count(capsys):
    def of_lora(*arguments: str) -> int:
        rows = json.loads(listed(capsys, "methods", *arguments, "--format", "json"))
        (count,) = (row["on vit_micro_glyphs"] for row in rows if row["MODEL.TRANSFER_TYPE"] == "lora")
        return int(count.replace(",", ""))

    assert of_lora("digits", "MODEL.LORA.RANK", "2") * 2 == of_lora("configs/digits.yaml", "MODEL.LORA.RANK", "4")


@pytest.mark.parametrize("command", [["methods"], ["--list-methods"]])
@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        ("timm:vit_base_patch16_224", "images of 100x100 pixels cannot be cut into patches of 16x16"),
        ("timm:no_such", "no network of this name"),
        ("vit_micro", "unknown DATA.FEATURE"),
    ],
)
def test_backbone_without_methods_is_an_error_that_says_why(capsys, command, feature, reason):
    main = train.main if command == ["--list-methods"] else tool.main
    assert main([*command, "DATA.FEATURE", feature, "DATA.CROPSIZE", "100"]) == 1
    output = capsys.readouterr()
    assert reason in output.err
    assert not output.out


def test_images_that_do_not_fit_the_backbone_are_an_error(capsys):
    assert tool.main(["methods", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "30"]) == 1
    assert "cannot be cut into patches" in capsys.readouterr().err


def test_tasks_are_looked_for_in_datapath(capsys, tmp_path):
    output = listed(capsys, "tasks", "DATA.DATAPATH", str(tmp_path))
    assert f"looked in {tmp_path} " in output
    assert any(line.split()[0] == "digits" and line.endswith("always") for line in output.splitlines() if line)


def test_backbones_say_which_weights_are_here(capsys, tmp_path):
    rows = {row["DATA.FEATURE"]: row for row in json.loads(listed(capsys, "backbones", "--format", "json"))}
    assert list(rows) == list(MODEL_ZOO)
    assert rows["vit_micro_glyphs"]["weights"].startswith("here: ")
    assert (rows["dinov2_vits14"]["pixels"], rows["dinov2_vits14"]["mean, std"]) == ("518", "ImageNet")
    (tmp_path / "dino_vitbase16_pretrain.pth").touch()
    output = listed(capsys, "backbones", "dino_", "MODEL.MODEL_ROOT", str(tmp_path))
    assert f"here: {tmp_path}/dino_vitbase16_pretrain.pth" in output
    assert output.count("missing: ") == 3


def test_backbones_come_with_what_works_on_each_family(capsys):
    assert train.main(["--list-backbones"]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[-len(FAMILIES) - 2 :] == listed(capsys, "backbones").splitlines()[-len(FAMILIES) - 2 :]
    assert re.search(r"^  Eva: \d+.* fold away\)$", output, re.M)
    assert all(f"| {name} " in output for name in MODEL_ZOO)


def test_backbones_of_timm_are_those_with_weights(capsys):
    names = [row["DATA.FEATURE"] for row in json.loads(listed(capsys, "backbones", "timm:large", "--format", "json"))]
    assert {"timm:vit_large_patch14_dinov2.lvd142m", "timm:eva02_large_patch14_224.mim_in22k"} <= set(names)
    assert not any("base" in name for name in names)


def test_configs_are_named_as_commands_take_them(capsys):
    output = listed(capsys, "configs")
    for name in CONFIGS:
        assert any(line.startswith((f"vitune train {name} ", f"vitune tune {name} ")) for line in output.splitlines())
    assert "vitune tune sweeps/digits " in output
    assert "vitune train digits " in output


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_described_in_a_sentence(name):
    text = description(CONFIGS[name].read_text())
    assert 10 < len(text) < 300
    assert "--config-file" not in text


def test_own_config_hides_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.yaml").write_text("# Mine: vitune train digits\nSEED: 1\n")
    (tmp_path / "configs" / "other.yaml").write_text("SWEEP:\n  SEEDS: [1]\n")
    rows = {row[0]: row[1:] for row in configs_table().rows}
    assert rows["vitune train digits"] == ("./configs", "Mine")
    assert rows["vitune tune other"] == ("./configs", "")
    assert rows["vitune train folder"][0] == "shipped"


def test_keys_are_found_by_name_and_by_meaning(capsys):
    (row,) = json.loads(listed(capsys, "keys", "solver.momentum", "--format", "json"))
    assert row == {"key": "SOLVER.MOMENTUM", "default": "0.9", "meaning": "Momentum of sgd.", "values": "from 0 to 1"}
    assert "SOLVER.MOMENTUM" in listed(capsys, "keys", "momentum of")


def test_recipes_are_chosen_as_repro_does(capsys):
    output = listed(capsys, "recipes", "--method", "LoRA", "--task", "dtd", "--paper", "NOAH")
    assert "noah" in output
    assert "FacT" not in output


@pytest.mark.parametrize("what", ["backbones", "configs", "keys", "recipes"])
def test_word_that_nothing_has_is_an_error(capsys, what):
    assert tool.main([what, "nosuchword"]) == 1
    assert "nosuchword" in capsys.readouterr().err


def test_settings_with_problems_end_with_2(capsys):
    assert tool.main(["methods", "MODEL.LORA.RANKS", "4"]) == 2
    assert "MODEL.LORA.RANK" in capsys.readouterr().err
    assert tool.main(["keys", "two", "words"]) == 2


def test_methods_that_do_not_fit_have_a_reason_below_the_table(capsys):
    output = listed(capsys, "methods", "DATA.FEATURE", "timm:convnext_atto", "DATA.CROPSIZE", "64")
    lines = output.splitlines()
    (lora,) = (line for line in lines if line.startswith("lora "))
    (number,) = re.findall(r"- \[(\d+)\]", lora)
    assert f"[{number}] does not fit: stages.0.blocks.0.mlp.fc1 is a Conv2d, not a linear map" in lines
    (norms,) = (line for line in lines if line.startswith("layernorm "))
    assert "- [" not in norms


def test_programs_get_the_reason_with_each_method(capsys):
    arguments = ("DATA.FEATURE", "timm:test_convnext", "DATA.CROPSIZE", "64", "--format", "json")
    rows = {row["MODEL.TRANSFER_TYPE"]: row for row in json.loads(listed(capsys, "methods", *arguments))}
    lora, vqt = rows["lora"], rows["vqt"]
    assert (vqt["on timm:test_convnext"], lora["does not fit"]) == ("-", "")
    assert vqt["does not fit"] == "it needs the tokens of a ViT, which a ConvNeXt does not have"
    assert int(lora["on timm:test_convnext"].replace(",", "")) > 0


def test_a_budget_is_not_more_than_the_network_has(capsys):
    rows = json.loads(
        listed(capsys, "methods", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32", "--format", "json")
    )
    (spt,) = (row["on vit_micro_glyphs"] for row in rows if row["MODEL.TRANSFER_TYPE"] == "spt_lora")
    assert spt == "≈ 207,424"


def test_an_empty_cache_of_the_hub_is_said_to_be_so(capsys, monkeypatch):
    monkeypatch.setattr("src.tools.list.backbones.cached", list)
    assert tool.main(["backbones", "hf:"]) == 1
    assert re.search(
        r"none of the checkpoints that ViTune reads is in the local cache .*: `hf d", capsys.readouterr().err
    )


def test_listing_leaves_other_logs_as_they_are(capsys, caplog):
    listed(capsys, "keys", "momentum")
    logging.getLogger("src").info("heard")
    assert "heard" in caplog.text


def test_backbone_that_no_method_fits_is_an_error(capsys, monkeypatch):
    for method in METHODS.values():
        monkeypatch.setattr(method, "for_any_backbone", False)
    assert tool.main(["methods", "DATA.FEATURE", "timm:convnext_atto", "DATA.CROPSIZE", "64"]) == 1
    output = capsys.readouterr()
    assert "no method fits timm:convnext_atto" in output.err
    assert not output.out


@pytest.mark.parametrize("title", ["ViT", "EVA-02 B", "Swin", "AIMv2"])
def test_parameters_are_counted_without_numbers(title):
    """As many as train in the network itself."""
    specimen, found = matrix.specimens()[title], matrix.read()[title]
    cfg = make_cfg(MODEL__FFT__FREQ=30, MODEL__VERA__R=8)
    vit = specimen.build().to("meta")
    family_of(vit).prepare(vit)
    for name, cell in found.items():
        if cell.mark != REFUSED and not METHODS[name].budget(cfg.MODEL.get(config_name(name), {})):
            assert _count(name, METHODS[name], cfg, vit) == f"{cell.parameters:,}", name
