"""Configs by name: where they are looked for, and what is said of names that are none."""

import pytest

from src.configs.config import ConfigError, load_cfg
from src.configs.files import config_names, find_config
from src.utils.shipped import shipped


def test_a_path_is_taken_as_it_is(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("SEED: 7\n")
    assert find_config(file) == file
    assert find_config("configs/digits.yaml").read_bytes() == find_config("digits").read_bytes()


def test_names_are_looked_for_in_the_own_folder_and_then_among_those_that_ship(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("methods/boft") == shipped("configs") / "methods" / "boft.yaml"
    assert load_cfg("digits") == load_cfg(shipped("configs") / "digits.yaml")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.yaml").write_text("_BASE_: ../base.yaml\nSEED: 7\n")
    (tmp_path / "base.yaml").write_text((shipped("configs") / "digits.yaml").read_text())
    assert load_cfg("digits").SEED == 7
    (tmp_path / "digits").write_text("SEED: 8\nDATA: {NAME: digits, FEATURE: vit_micro_glyphs, CROPSIZE: 32}\n")
    assert load_cfg("digits").SEED == 8


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digts", "digits"),
        ("boft", "methods/boft"),
        ("configs/digit.yaml", "digits"),
        ("sweeps/photo", "sweeps/photos"),
    ],
)
def test_a_wrong_name_says_the_nearest(name, near):
    assert near in config_names()
    with pytest.raises(ConfigError, match=rf"{name} is neither a file .* did you mean .*{near}"):
        load_cfg(name)


def test_a_file_may_be_based_on_a_config_by_name(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("_BASE_: digits\nSEED: 7\n")
    cfg = load_cfg(mine)
    assert (cfg.SEED, cfg.DATA.FEATURE) == (7, "vit_micro_glyphs")
    mine.write_text("_BASE_: digitz\n")
    with pytest.raises(ConfigError, match="did you mean digits"):
        load_cfg(mine)


def test_the_nearest_choice_and_backbone_are_named():
    with pytest.raises(ConfigError) as error:
        load_cfg("digits", ["FREQFIT", "freqfitt", "DATA.FEATURE", "vit_micro_glyph", "DEVICE", "cpuu"])
    message = str(error.value)
    assert "did you mean 'freqfit'?" in message
    assert "did you mean vit_micro_glyphs?" in message
    assert "DEVICE is 'cpuu'" in message
