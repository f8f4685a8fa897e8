"""Every Python block of the pages runs as it stands, and so does the notebook."""

import os
import re
import shutil

import nbformat
import pytest
import timm
import torch
from blocks import blocks
from conftest import make_vit
from nbclient import NotebookClient
from paths import ROOT
from runs import quick

from src.engine.run import run

NOTEBOOKS = [ROOT / "docs" / name for name in ("five-minutes.ipynb", "fit.ipynb")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run."""
    cfg, folder = quick(tmp_path_factory.mktemp("runs"), "MODEL.TRANSFER_TYPE", "linear", "SOLVER.TOTAL_EPOCH", "1")
    run(cfg, folder)
    return folder.path


@pytest.fixture
def place(tmp_path, finished, monkeypatch):
    """A folder with all that the blocks name, where ViTune can be imported under the name it has when installed."""
    for name, target in {"vitune": "src", "configs": "configs", "pretrained": "pretrained"}.items():
        (tmp_path / name).symlink_to(ROOT / target)
    (tmp_path / "RUN_DIR").symlink_to(finished)
    shutil.copy(ROOT / "docs" / "pages" / "pictures" / "digits.png", tmp_path / "cat.jpg")
    torch.save({"state_dict": {"backbone.norm.weight": torch.ones(3)}}, tmp_path / "checkpoint.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    real = timm.create_model

    def small_unless_sized(*names, **options):
        """The demo's network has sizes of its own."""
        return real(*names, **options) if "embed_dim" in options else make_vit(img_size=224, patch_size=56)

    monkeypatch.setattr(timm, "create_model", small_unless_sized)
    return tmp_path


@pytest.mark.parametrize("block", [b for b in blocks("python") if "/adding/" not in b.page], ids=str)
def test_python_blocks_run_as_they_stand(block, place):
    names = {}
    exec(compile(block.text, str(block), "exec"), names)
    if "trained" in names:
        assert sum(p.numel() for p in names["trained"]) == sum(names["model"].num_trained().values())
    if "loaders" in names:
        images, labels = next(names["loaders"]["train"].epoch(0))
        assert images.shape == (len(labels), 3, 32, 32)
        assert names["left_out"] == []
        assert len(names["data"].splits["val"].keys) == 200
    if "logits" in names:
        assert names["logits"].isfinite().all()


def printed(path, place, monkeypatch) -> str:
    """What a notebook prints."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(place)}}).execute()
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))


def test_the_notebook_runs(place, monkeypatch):
    text = printed(NOTEBOOKS[0], place, monkeypatch)
    assert "500 images in 10 classes" in text
    assert "digit 7/" in text
    assert all(float(percent) > 80 for percent in re.findall(r"(?:linear|lora): test top-1 ([\d.]+) %", text))
    assert len(re.findall("(?:linear|lora): test", text)) == 2


def test_the_notebook_on_fit_runs(place, monkeypatch):
    text = printed(NOTEBOOKS[1], place, monkeypatch)
    assert "1 left out because it was leaked" in text
    assert "1 file is left out" in text
    assert len(re.findall(r"\.png: digit \d \(", text)) == 3
    assert float(re.search(r"expect ([\d.]+) %", text)[1]) > 75


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebooks_are_kept_without_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
