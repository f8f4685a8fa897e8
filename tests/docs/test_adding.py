"""What the pages under "Extend" say to write works as it stands."""

import sys
import types

import pytest
import torch
from blocks import blocks
from paths import ROOT
from sklearn.metrics import f1_score

from src.configs.config import get_cfg, load_cfg
from src.data import tasks
from src.data.sources import torchvision_sets
from src.engine.results import run_folder
from src.engine.run import run
from src.models import vit_models
from src.models.vit_backbones import build, zoo
from src.models.vit_backbones.rows import supervised
from src.solver import lr_scheduler, optimizer


def python_blocks(page: str) -> list[str]:
    return [block.text for block in blocks("python", f"docs/pages/adding/{page}.md")]


def rows(text: str, module: types.ModuleType) -> dict:
    """Rows of a dictionary in ``module``."""
    return eval("{" + text.strip() + "}", vars(module))


def test_a_method_is_a_file_and_a_line(tmp_path, monkeypatch):
    file, line = python_blocks("method")
    module = types.ModuleType("src.models.methods.ia3")
    module.__package__ = "src.models.methods"
    exec(compile(file, "ia3.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name, method in rows(line, module).items():
        monkeypatch.setitem(vit_models.METHODS, name, method)
    (config,) = (block.text for block in blocks("yaml", "docs/pages/adding/method.md"))
    (tmp_path / "ia3.yaml").write_text(config.replace("../digits.yaml", str(ROOT / "configs" / "digits.yaml")))
    pairs = ["FREQFIT", "freqfit", "OUTPUT_DIR", str(tmp_path), "DATA.PERCENTAGE", "0.1"]
    cfg = load_cfg(tmp_path / "ia3.yaml", pairs)
    result = run(cfg, run_folder(cfg))
    assert result["parameters"]["by_part"]["ia3"] == 4 * (2 * 64 + 4 * 64)


def test_a_backbone_is_a_row(monkeypatch, tmp_path):
    (row,) = python_blocks("backbone")
    for name, entry in rows(row, supervised).items():
        monkeypatch.setitem(zoo.MODEL_ZOO, name, entry)
        assert build.architecture(name, (224, 224)).embed_dim == 384
        with pytest.raises(FileNotFoundError, match=r"ViT-S_16\.npz"):
            zoo.find_weights(name, tmp_path, "")


def test_a_data_set_is_a_row(tmp_path):
    row, of_torchvision = python_blocks("data-set")
    task = eval(row, vars(tasks))
    for split, label in (("train", "moss"), ("test", "fern")):
        (tmp_path / split / label).mkdir(parents=True)
    assert task.layouts[0].find(tmp_path)
    assert task.sizes == {"train": 240, "val": 60, "test": 120}
    (folder, splits) = rows(of_torchvision, torchvision_sets)["EuroSAT"]
    assert isinstance(folder, str)
    assert splits == {"train": {}}


def test_macro_f1_is_scikit_learns():
    (code,) = python_blocks("metric")
    names = {"torch": torch, "Tensor": torch.Tensor}
    exec(code, names)
    generator = torch.Generator().manual_seed(0)
    labels, predicted = (torch.randint(5, (200,), generator=generator) for _ in range(2))
    assert names["macro_f1"](predicted, labels) == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_a_schedule_is_a_function_and_a_line(monkeypatch):
    schedule, line, _, _ = python_blocks("optimizer")
    names = dict(vars(lr_scheduler))
    exec(schedule, names)
    monkeypatch.setattr(lr_scheduler, "SCHEDULES", eval("{" + line + "}", names))
    rates = [lr_scheduler.learning_rate("linear", 1.0, 2, 10, at, min_lr=0.2) for at in (0, 1, 2, 6, 10, 12)]
    assert rates == pytest.approx([0, 0.5, 1, 0.6, 0.2, 0.2])


def test_an_optimizer_is_a_function_and_a_line(monkeypatch):
    _, _, function, line = python_blocks("optimizer")
    names = dict(vars(optimizer))
    exec(function, names)
    monkeypatch.setattr(optimizer, "OPTIMIZERS", eval("{" + line + "}", names))
    cfg = get_cfg().SOLVER
    cfg.OPTIMIZER, cfg.BASE_LR = "nadam", 0.1
    named = {"weight": torch.nn.Parameter(torch.ones(2, 2)), "bias": torch.nn.Parameter(torch.ones(2))}
    built = optimizer.build_optimizer(named.items(), cfg)
    assert isinstance(built, torch.optim.NAdam)
    sum(param.sum() for param in named.values()).backward()
    built.step()
    assert all((param < 1).all() for param in named.values())
