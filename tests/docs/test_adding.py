"""What the pages under "Extend" say to write works as it stands."""

import sys
import types

import pytest
import timm
import torch
from blocks import blocks
from conftest import make_model, randomise
from paths import ROOT
from sklearn.metrics import f1_score

from src.configs.config import get_cfg, load_cfg
from src.data import tasks
from src.data.sources import torchvision_sets
from src.engine.results import run_folder
from src.engine.run import run
from src.models import families, vit_models
from src.models.merge import load_merged, merged_state_dict
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
    row, _ = python_blocks("backbone")
    for name, entry in rows(row, supervised).items():
        monkeypatch.setitem(zoo.MODEL_ZOO, name, entry)
        assert build.architecture(name, (224, 224)).embed_dim == 384
        with pytest.raises(FileNotFoundError, match=r"ViT-S_16\.npz"):
            zoo.find_weights(name, tmp_path, "")


@pytest.mark.parametrize("methods", ["lora", "adapter", "ssf", "rlrr", "block", "fact_tt"])
def test_a_family_is_a_file_and_a_line(monkeypatch, methods):
    """Described in the file, a network that no family had before takes the methods that ask for its parts."""

    def network() -> torch.nn.Module:
        torch.manual_seed(1)
        sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2)
        return timm.create_model("vit_relpos_small_patch16_224", num_classes=0, **sizes).eval()

    if methods in ("adapter", "block"):
        with pytest.raises(ValueError, match="VisionTransformerRelPos"):
            make_model(methods, vit=network())
    _, file = python_blocks("backbone")
    module = types.ModuleType("src.models.families.relpos")
    module.__package__ = "src.models.families"
    exec(compile(file, "relpos.py", "exec"), module.__dict__)
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, module.RelPosViT()))
    model, images = make_model(methods, vit=network()), torch.randn(2, 3, 32, 32)
    randomise(model)
    model(images).square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if methods not in ("adapter", "block"):
        plain = network()
        load_merged(plain, merged_state_dict(model))
        pooled = plain.forward_head(plain.forward_features(images), pre_logits=True)
        torch.testing.assert_close(pooled, model.features(images), atol=1e-4, rtol=1e-4)


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
