"""The recipes say what the original repositories say: numbers typed from their files, schedules from timm itself."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import make_model
from paths import ROOT
from timm.scheduler import CosineLRScheduler

from src.configs.config import flatten, load_cfg, load_settings
from src.data.loader import split_batches
from src.data.tasks import find_task
from src.solver.lr_scheduler import Schedule
from src.solver.optimizer import parameter_groups
from src.tools.tune.plan import Plan
from src.tools.tune.points import points
from src.tools.tune.spec import label, load_sweep

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


def task_of(name: str) -> str:
    return RENAMED.get(name) or find_task(name).name


# What no other repository calls them.
RENAMED = {"cifar_100": "cifar100", "cub_2011": "CUB", "CUB_200_2011": "CUB", "oxford_flowers": "OxfordFlowers"}
RENAMED |= {"stanford_dogs": "StanfordDogs", "stanford_cars": "StanfordCars"}

SOLVER = {"lr": "SOLVER.BASE_LR", "weight_decay": "SOLVER.WEIGHT_DECAY"}
SSF = SOLVER | {"drop_path": "SOLVER.DROP_PATH", "ema": "SOLVER.EMA"}
RLRR = SOLVER | {"drop_path": "MODEL.RLRR.DROPOUT", "simple_aug": "DATA.AUGMENT"}
CONVPASS = {"scale": "MODEL.CONVPASS.SCALE", "xavier_init": "MODEL.CONVPASS.CONV_INIT"}
# Our file -> the table it has to equal, and where each of its columns is said here.
TABLES = {
    "repro/fact_tk_fixed": ("fact_tk", {"rank": "MODEL.FACT_TK.RANK", "scale": "MODEL.FACT_TK.SCALE"}),
    "sweeps/fact_tt": ("fact_tt", {"rank": "MODEL.FACT_TT.RANK", "scale": "MODEL.FACT_TT.SCALE"}),
    "repro/convpass_fixed": ("convpass", CONVPASS),
    "repro/convpass_attn_fixed": ("convpass_attn", CONVPASS),
    "repro/repadapter": ("repadapter", {"scale": "MODEL.REPADAPTER.SCALE"}),
    "repro/ssf_fixed": ("ssf", SSF),
    "repro/ssf_fgvc": ("ssf_fgvc", SSF),
    "repro/rlrr": ("rlrr", RLRR),
    "repro/rlrr_augreg": ("rlrr", RLRR),
    "repro/rlrr_vitl": ("rlrr", RLRR),
    "repro/rlrr_vith": ("rlrr", RLRR),
    "repro/rlrr_fgvc": ("rlrr_fgvc", RLRR),
    "repro/rlrr_fgvc_augreg": ("rlrr_fgvc", RLRR),
    "repro/vqt": ("vqt", {"queries": "MODEL.VQT.NUM_QUERIES"}),
}
WORDS = {"xavier_init": {True: "xavier", False: "identity"}, "simple_aug": {True: "flip", False: "none"}}


@pytest.mark.parametrize("path", TABLES)
def test_settings_of_every_task_are_those_of_the_original_repository(path):
    table, keys = TABLES[path]
    theirs = {task_of(name): row for name, row in PUBLISHED[table]["tasks"].items()}
    ours = runs(path)
    assert ours.keys() == theirs.keys()
    for task, row in theirs.items():
        said = {column: WORDS.get(column, {}).get(value, value) for column, value in row.items()}
        assert {column: ours[task][keys[column]] for column in row} == said, task


def config_of(path: str, task: str = ""):
    """Of the first cell's, or the task's, first point."""
    sweep = load_sweep(ROOT / f"configs/{path}.yaml", ["SWEEP.OVER.DATA.NAME", f"[{task}]"] if task else [])
    choices = [axis[0] for axis in sweep.over.values()]
    axes = sweep.tune | {name: axis for choice in choices for name, axis in choice.tune.items()}
    layers = [choice.settings for choice in choices]
    layers += [sweep.cells.get(tuple(label(choice) for choice in choices), {}), points(axes, sweep)[0][1]]
    settings = [(key, value, "the sweep") for layer in layers for key, value in layer.items()]
    return load_settings([*sweep.settings, *settings], [], quiet=True)


def timm_rates(lr, warmup_lr, min_lr, late, epochs=100, warmup=10, cooldown=0):
    """Of every epoch, from timm's own scheduler, stepped after each with its number ("late") or with the next."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    scheduler = CosineLRScheduler(optimizer, epochs, warmup_t=warmup, warmup_lr_init=warmup_lr, lr_min=min_lr)
    rates = []
    for epoch in range(epochs + cooldown):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch if late else epoch + 1)
    return rates


def vpt_rates(lr, warmup=10, epochs=100):
    """KMnP/vpt@4410440 src/solver/lr_scheduler.py, WarmupCosineSchedule, stepped after each epoch."""
    rising = [lr * epoch / warmup for epoch in range(warmup)]
    return rising + [lr * 0.5 * (1 + math.cos(math.pi * e / (epochs - warmup))) for e in range(epochs - warmup)]


NOAH = timm_rates(1e-3, 1e-6, 1e-5, late=True)  # supernet_train_prompt.py:85-98, :371; FacT/fact_tk.py:204
SPT = NOAH  # train_spt.py:491
SSF_VTAB = timm_rates(1e-3, 1e-7, 1e-8, late=False, cooldown=10)  # vit/vtab/caltech101/train_ssf.sh, train.py:709
SSF_FGVC = timm_rates(1e-2, 1e-7, 1e-8, late=False, cooldown=10)  # vit/fgvc/cub_2011/train_ssf.sh
RLRR_VTAB = timm_rates(1e-3, 1e-7, 1e-8, late=True, cooldown=10)  # VTABConfig.py, train_vtab.py:42, :172
RLRR_FGVC = timm_rates(5e-4, 1e-7, 1e-8, late=True, epochs=50, cooldown=10)  # FGVCConfig.py (NABirds), train_fgvc.py
# Our file -> rates of all epochs and steps in all, of VTAB-1k's 1,000 images.
RUNS = {
    "repro/noah": (NOAH, 1500),
    "repro/fact_tk_fixed": (NOAH, 1500),
    "sweeps/fact_tt": (NOAH, 1500),
    "repro/convpass_fixed": (NOAH, 1500),
    "repro/convpass_attn_fixed": (NOAH, 1500),
    "repro/repadapter": (NOAH, 1500),
    "repro/adaptformer": (NOAH, 1500),
    "repro/ssf_fixed": (SSF_VTAB, 1650),
    "repro/ssf": (SSF_VTAB, 1650),
    "repro/rlrr": (RLRR_VTAB, 3520),
    "repro/rlrr_augreg": (RLRR_VTAB, 3520),
    "repro/spt": (SPT, 1600),
    "repro/spt_mae": (SPT, 1600),
    "repro/spt_moco": (SPT, 1600),
    "repro/vpt_deep_fixed": (vpt_rates(12.5), 800),
    "repro/vqt": (vpt_rates(0.5), 800),
}
# The same of a fine-grained task, and its number of images: train and val.
FGVC_RUNS = {
    "repro/ssf_fgvc": ("CUB", 5994, SSF_FGVC, 93 * 110),
    "repro/rlrr_fgvc": ("nabirds", 23929, RLRR_FGVC, 748 * 60),
}


def assert_runs_as(cfg, images: int, rates: list[float], steps: int):
    per_epoch = len(split_batches(torch.arange(images), cfg.DATA.BATCH_SIZE, cfg.DATA.DROP_LAST))
    schedule = Schedule(cfg.SOLVER, per_epoch)
    assert per_epoch * schedule.epochs == steps
    assert [schedule(epoch, 0) for epoch in range(schedule.epochs)] == pytest.approx(rates, rel=1e-12, abs=1e-20)


@pytest.mark.parametrize("path", RUNS)
def test_a_run_has_the_learning_rates_and_steps_of_the_original(path):
    rates, steps = RUNS[path]
    assert_runs_as(config_of(path), 1000, rates, steps)


@pytest.mark.parametrize("path", FGVC_RUNS)
def test_a_run_on_a_fine_grained_task_has_them_too(path):
    task, images, rates, steps = FGVC_RUNS[path]
    assert_runs_as(config_of(path, task), images, rates, steps)


def test_block_expansion_has_the_learning_rates_of_hugging_faces_schedule():
    cfg = config_of("repro/block_expansion")
    schedule = Schedule(cfg.SOLVER, 390)  # 50,000 images in batches of 128, the last one left out
    at = [(step // 390, step % 390) for step in (0, 1, 499, 500, 5000, 9999)]
    falling = [0.005 * 0.5 * (1 + math.cos(math.pi * (step - 500) / 9500)) for step in (500, 5000, 9999)]
    assert [schedule(*one) for one in at] == pytest.approx([0.0, 0.005 / 500, 0.005 * 499 / 500, *falling], rel=1e-12)
    assert sum(schedule.steps(epoch) for epoch in range(schedule.epochs)) == 10_000


NOAH_LOOP = {"SOLVER.OPTIMIZER": "adamw", "SOLVER.WEIGHT_DECAY": 1e-4, "SOLVER.EPS": 1e-8, "SOLVER.DROP_PATH": 0.1}
NOAH_LOOP |= {"DATA.SOURCE": "noah", "DATA.PIXELS": "noah", "DATA.NORMALIZE": "", "DATA.BATCH_SIZE": 64}
JIE = NOAH_LOOP | {"MODEL.HEAD_INIT": "linear", "SOLVER.DECAY": "all", "SEED": 42}  # fact_tk.py:169-205, train.py:55-85
SSF_ALL = {"MODEL.HEAD_INIT": "trunc_normal", "SOLVER.EPS": 1e-8, "DATA.NORMALIZE": "backbone", "SEED": 42}
SSF_ALL |= {"DATA.FEATURE": "timm:vit_base_patch16_224.augreg_in21k", "SOLVER.OPTIMIZER": "adamw"}
SSF_STRONG = {"DATA.MIXUP": 0.8, "DATA.CUTMIX": 1.0, "DATA.RANDOM_ERASING": 0.25, "SOLVER.LABEL_SMOOTHING": 0.1}
RLRR_ALL = {"MODEL.HEAD_INIT": "zero", "SOLVER.EPS": 1e-8, "DATA.NORMALIZE": "inception", "DATA.BATCH_SIZE": 32}
RLRR_ALL |= {"SOLVER.OPTIMIZER": "adamw", "SOLVER.DROP_PATH": 0.0, "SEED": 42}
SPT_ALL = NOAH_LOOP | {"MODEL.HEAD_INIT": "trunc_normal", "SOLVER.DROP_PATH": 0.0, "SEED": 0}  # its own keys drop paths
VPT_ALL = {"SOLVER.OPTIMIZER": "sgd", "MODEL.HEAD_INIT": "vpt", "DATA.PIXELS": "vpt", "DATA.SOURCE": "tfds"}
# Our file -> what is alike in all its runs, in the original repository.
ALIKE = {
    "repro/noah": NOAH_LOOP | {"MODEL.HEAD_INIT": "trunc_normal", "SOLVER.DECAY": "timm", "SEED": 0},
    "repro/fact_tk_fixed": JIE,
    "sweeps/fact_tt": JIE,
    "repro/convpass_fixed": JIE | {"MODEL.CONVPASS.WIDTH": 8, "MODEL.CONVPASS.SITES": ["attn", "mlp"]},
    "repro/convpass_attn_fixed": JIE | {"MODEL.CONVPASS.WIDTH": 8, "MODEL.CONVPASS.SITES": ["attn"]},
    "repro/repadapter": JIE | {"MODEL.REPADAPTER.WIDTH": 8, "MODEL.REPADAPTER.GROUPS": 2},
    "repro/adaptformer": JIE | {"MODEL.ADAPTFORMER.WIDTH": 8},
    "repro/ssf_fixed": SSF_ALL | {"DATA.SOURCE": "noah", "DATA.BATCH_SIZE": 64, "DATA.MIXUP": 0.0},
    "repro/ssf_fgvc": SSF_ALL | SSF_STRONG | {"DATA.BATCH_SIZE": 64, "DATA.AUGMENT": "rrc_flip"},
    "sweeps/ssf_cifar100": SSF_ALL | SSF_STRONG | {"DATA.BATCH_SIZE": 128, "SOLVER.EMA": 0.99992},
    "repro/rlrr": RLRR_ALL | {"DATA.SOURCE": "noah", "DATA.FEATURE": "sup_vitb16_imagenet21k"},
    "repro/rlrr_augreg": RLRR_ALL | {"DATA.FEATURE": "timm:vit_base_patch16_224.augreg_in21k"},
    "repro/rlrr_fgvc": RLRR_ALL | {"DATA.RESIZE": "squash_crop", "DATA.TRAIN_SPLIT": "trainval"},
    "repro/spt": SPT_ALL | {"DATA.FEATURE": "sup_vitb16_imagenet21k", "MODEL.SPT_LORA.RANK": 8},
    "repro/spt_mae": SPT_ALL | {"DATA.FEATURE": "mae_vitb16"},
    "repro/spt_moco": SPT_ALL | {"DATA.FEATURE": "mocov3_vitb"},
    "repro/vpt_deep_fixed": VPT_ALL | {"MODEL.PROMPT.DEEP": True, "MODEL.PROMPT.DROPOUT": 0.1},
    "repro/vqt": VPT_ALL | {"SOLVER.OPTIMIZER": "adam", "MODEL.VQT.DROPOUT": 0.1},
    "repro/block_expansion": {"SOLVER.MAX_STEPS": 10_000, "SOLVER.WARMUP_STEPS": 500, "DATA.BATCH_SIZE": 128},
}


@pytest.mark.parametrize("path", ALIKE)
def test_what_is_alike_in_all_tasks_is_that_of_the_original_repository(path):
    seeds = [seed.settings for seed in load_sweep(ROOT / f"configs/{path}.yaml").seeds]
    ours = flatten(config_of(path)) | seeds[0]
    assert {key: ours[key] for key in ALIKE[path]} == ALIKE[path]


def places(model, method: str, site: str) -> tuple[str, ...]:
    """The beginnings of names of what ``method`` learns at ``site``."""
    return tuple(f"methods.{method}.taps.{index}." for where, _, index in model.methods[method].wires if where == site)


HEAD = ("head.last_layer.weight",)
# Our file, its method -> whether a parameter decays, by the original's rule.
DECAYS = {
    ("repro/noah", "lora"): lambda name, param, model: param.ndim > 1,  # timm's create_optimizer
    ("repro/noah", "adapter"): lambda name, param, model: param.ndim > 1,
    ("repro/fact_tk_fixed", "fact_tk"): lambda name, param, model: True,  # AdamW(trainable, ...), fact_tk.py:203
    ("repro/convpass_fixed", "convpass"): lambda name, param, model: True,
    ("repro/repadapter", "repadapter"): lambda name, param, model: True,
    ("repro/ssf_fixed", "ssf"): lambda name, param, model: name in HEAD,  # all others are vectors, optim_factory.py:51
    # neither "bias" nor "norm" in its name: scale_col, scale_line, ssf_scale_patch, ssf_shift_patch, networks.py:299
    ("repro/rlrr", "rlrr"): lambda name, param, model: (
        name in HEAD
        or name.endswith(("scale_in", "scale_out"))
        or name.startswith(places(model, "rlrr", "patch_embed.proj"))
    ),
}


@pytest.mark.parametrize(("path", "method"), DECAYS)
def test_what_decays_is_what_decays_in_the_original(path, method):
    model = make_model(method)
    groups = parameter_groups(model.named_parameters(), config_of(path).SOLVER, model)
    decaying = {name: decay > 0 for (_, decay), params in groups.items() for name in params}
    trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
    assert decaying == {name: DECAYS[path, method](name, param, model) for name, param in trained.items()}


REPRO = sorted(path.stem for path in (ROOT / "configs/repro").glob("*.yaml") if not path.stem.startswith("study"))


@pytest.mark.parametrize("name", REPRO)
def test_a_recipes_head_says_what_differs_and_in_which_precision_its_source_computed(name):
    head = (ROOT / f"configs/repro/{name}.yaml").read_text().split("\n_BASE_")[0]
    assert re.search(r"^# What still differs:", head, re.MULTILINE)
    assert re.search("float32|fp16|TensorFloat-32", head, re.IGNORECASE)


# What these repositories and PDFs do not have, although others do.
SILENT = {"adaptformer": ["seed"], "block_expansion": ["seed", "learning rate"]}
SILENT |= {"freqfit_vitl": ["learning rate", "batch"]}
STATED = ("learning rate", "decay", "normalisation", "mean and std", "seed", "schedule", "batch", "augmentation")


@pytest.mark.parametrize("name", REPRO)
def test_nothing_is_called_not_stated_that_the_repository_states(name):
    head = (ROOT / f"configs/repro/{name}.yaml").read_text().split("\n_BASE_")[0].replace("\n# ", " ")
    for sentence in re.findall(r"not stated[^.]*", head, re.IGNORECASE):
        assert not [word for word in STATED if word in sentence and word not in SILENT.get(name, ())], sentence
