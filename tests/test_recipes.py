"""The recipes say what the original repositories say: numbers typed from their files, schedules from timm itself."""

import json
from pathlib import Path

import pytest

from src.configs.config import flatten, load_cfg, load_settings
from src.data.tasks import find_task
from src.tools.sweeps.plan import Plan
from src.tools.sweeps.spec import load_sweep

ROOT = Path(__file__).parents[1]
# Settings of each task in the original repositories' own files, under their names; every table has its source.
PUBLISHED = json.loads(Path(__file__).with_name("published_settings.json").read_text())

# KMnP/vpt@4410440 configs/{finetune,linear,prompt}/*.yaml: SOLVER.BASE_LR and SOLVER.WEIGHT_DECAY
VPT_FGVC = {
    ("finetune", "cub"): (0.00375, 0.01),
    ("finetune", "nabirds"): (0.00375, 0.01),
    ("finetune", "flowers"): (0.001, 0.0001),
    ("finetune", "dogs"): (0.00375, 0.001),
    ("finetune", "cars"): (0.0375, 0.001),
    ("linear", "cub"): (0.1, 0.01),
    ("linear", "nabirds"): (0.1, 0.01),
    ("linear", "flowers"): (0.001, 0.0001),
    ("linear", "dogs"): (0.001, 0.0001),
    ("linear", "cars"): (0.001, 0.0001),
    ("prompt", "cub"): (0.1, 0.01),
    ("prompt", "nabirds"): (0.1, 0.01),
    ("prompt", "flowers"): (0.001, 0.0001),
    ("prompt", "dogs"): (0.001, 0.0001),
    ("prompt", "cars"): (0.001, 0.0001),
}
# its configs/base-*.yaml
VPT_BASES = {"finetune": ("adamw", 384, 5), "linear": ("sgd", 1024, 10), "prompt": ("sgd", 128, 10)}


@pytest.mark.parametrize(("file", "theirs"), VPT_FGVC.items())
def test_files_named_as_vpts_have_vpts_settings(file, theirs):
    kind, name = file
    cfg = load_cfg(ROOT / f"configs/{kind}/{name}.yaml", ["DATA.DATAPATH", "data"])
    solver = cfg.SOLVER
    chosen, base = (solver.BASE_LR, solver.WEIGHT_DECAY), (solver.OPTIMIZER, cfg.DATA.BATCH_SIZE, solver.WARMUP_EPOCH)
    assert (chosen, base) == (theirs, VPT_BASES[kind])
    assert (solver.TOTAL_EPOCH, solver.SCHEDULER, cfg.MODEL.HEAD_INIT) == (100, "cosine", "vpt")


def runs(path: str) -> dict[str, dict]:
    """Task -> the whole config of its tested run; of a sweep with one row."""
    cells = Plan(load_sweep(ROOT / f"configs/{path}.yaml")).cells
    return {cell.task: flatten(load_settings(cell.finals[0].settings, [], quiet=True)) for cell in cells}


# Our file -> the table it has to equal, and where each of its columns is said here.
TABLES = {
    "repro/vqt": ("vqt", {"queries": "MODEL.VQT.NUM_QUERIES"}),
}


@pytest.mark.parametrize("path", TABLES)
def test_settings_of_every_task_are_those_of_the_original_repository(path):
    table, keys = TABLES[path]
    theirs = {find_task(name).name: row for name, row in PUBLISHED[table]["tasks"].items()}
    ours = runs(path)
    assert ours.keys() == theirs.keys()
    for task, row in theirs.items():
        assert {column: ours[task][keys[column]] for column in row} == row, task
