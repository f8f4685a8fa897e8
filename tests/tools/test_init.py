"""vitune init: configs to edit."""

import pytest
import yaml

from src.configs.config import load_cfg
from src.tools.init import __main__ as tool
from src.tools.init.work import bases, chosen, named
from src.utils.shipped import shipped


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_configs_and_scripts_are_copied(folder, capsys):
    assert tool.main([]) == 0
    source = shipped("configs")
    wanted = {path for path in files(source) if path.endswith((".yaml", ".sh"))}
    assert files(folder / "configs") == wanted
    assert (folder / "configs/sweeps/photos.yaml").read_bytes() == (source / "sweeps/photos.yaml").read_bytes()
    assert "vitune train digits" in capsys.readouterr().out


def test_a_name_then_means_the_copy(folder):
    assert tool.main(["--only", "methods/topk"]) == 0
    assert load_cfg("methods/topk").SEED == 42
    digits = folder / "configs/digits.yaml"
    digits.write_text(digits.read_text() + "SEED: 7\n")
    assert load_cfg("methods/topk").SEED == 7


def test_chosen_configs_come_with_what_they_are_based_on(folder, capsys):
    assert tool.main(["lab", "--only", "sweeps/photos", "methods/topk"]) == 0
    assert files(folder / "lab/configs") == {
        "sweeps/photos.yaml", "folder.yaml", "methods/topk.yaml", "methods/block.yaml", "digits.yaml"
    }  # fmt: skip
    output = capsys.readouterr().out
    assert "cd lab" in output
    assert "vitune tune sweeps/photos" in output


@pytest.mark.parametrize("name", named(shipped("configs")))
def test_every_config_can_be_copied_alone(name, folder):
    for file in chosen(shipped("configs"), [name]):
        assert all(base.is_file() for base in bases(file))


def test_folders_and_paths_are_names_too(folder):
    assert tool.main(["--only", "./configs/digits.yaml", "finetune/"]) == 0
    assert {"digits.yaml", "finetune/cub.yaml", "base-finetune.yaml"} < files(folder / "configs")


def test_unknown_name_has_its_nearest(folder, capsys):
    assert tool.main(["--only", "digits", "sweeps/photo"]) == 1
    assert "'sweeps/photo'; did you mean sweeps/photos" in capsys.readouterr().err
    assert files(folder) == set()


def test_edited_files_are_not_replaced(folder, capsys):
    assert tool.main(["--only", "digits"]) == 0
    digits = folder / "configs/digits.yaml"
    digits.write_text("SEED: 7\n")
    assert tool.main([]) == 1
    error = capsys.readouterr().err
    assert "digits.yaml differs" in error
    assert "--keep" in error
    assert files(folder) == {"configs/digits.yaml"}


def test_keep_adds_what_is_missing_and_force_replaces(folder, capsys):
    assert tool.main(["--only", "digits"]) == 0
    digits = folder / "configs/digits.yaml"
    before = digits.read_text()
    digits.write_text("SEED: 7\n")
    assert tool.main(["--keep", "--only", "digits", "folder"]) == 0
    assert yaml.safe_load(digits.read_text()) == {"SEED": 7}
    assert (folder / "configs/folder.yaml").is_file()
    assert "left as you have edited them: digits.yaml" in capsys.readouterr().out
    assert tool.main(["--force", "--only", "digits", "folder"]) == 0
    assert digits.read_text() == before
    assert "replaced: digits.yaml" in capsys.readouterr().out


def test_again_is_nothing_to_do(folder, capsys):
    assert tool.main(["--only", "digits"]) == 0
    assert tool.main(["--only", "digits"]) == 0
    assert "nothing new to copy" in capsys.readouterr().out


def test_shipped_configs_are_not_copied_onto_themselves(monkeypatch, capsys):
    monkeypatch.chdir(shipped("configs").parent)
    assert tool.main([]) == 1
    assert "ships with ViTune" in capsys.readouterr().err


def test_file_in_the_way_is_an_error(folder, capsys):
    (folder / "configs").write_text("")
    assert tool.main(["--only", "digits"]) == 1
    assert "configs/digits.yaml" in capsys.readouterr().err
