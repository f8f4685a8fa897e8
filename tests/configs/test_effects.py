"""Every key does something: at another value it changes a model, what is trained, or what is said in ``ELSEWHERE``.

A new key is in these tests as soon as it is declared. What it needs beside it stands in ``NEEDS``; a value that does
more than the one that is found by its facts, in ``OTHERS``.
"""

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import make_model, randomise
from runs import QUICK

from src.configs.config import load_cfg
from src.configs.keys import Key
from src.configs.methods import config_name
from src.configs.reference import all_keys
from src.data.opened import open_data
from src.engine.results import RunFolder
from src.engine.trainer import Training
from src.models.vit_models import METHODS, build_model
from src.utils.signals import StopSignals

CPU = torch.device("cpu")

# Another value of a key, where its facts do not lead to one that can be tried here.
OTHERS = {
    "DATA.CROPSIZE": 64,
    "DATA.IMAGE_SIZE": [32, 64],
    "DATA.MEAN": [0.1, 0.2, 0.3],
    "DATA.STD": [0.1, 0.2, 0.3],
    "DATA.PERCENTAGE": 0.05,
    "DATA.AUTO_AUGMENT": "randaugment",
    "DATA.AUGMENT": "flip",
    "DATA.DECODER": "pil",
    "DATA.RESIZE": "crop",
    "DATA.RANDOM_ERASING": 0.5,
    "DATA.TRAIN_SPLIT": "trainval",
    "DATA.BATCH_SIZE": 5,
    "DATA.NORMALIZE": "inception",
    "MODEL.TRANSFER_TYPE": "ssf",
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.CLIP_GRAD": 0.01,
    "SOLVER.EPS": 0.1,
    "SOLVER.SCHEDULER": "constant",
    "SOLVER.WARMUP_LR": 0.01,
    "SOLVER.MIN_LR": 0.01,
    "SOLVER.MAX_STEPS": 2,
    "SOLVER.MIN_STEPS": 20,
    "SOLVER.WEIGHT_DECAY": 0.5,
    "SOLVER.OPTIMIZER": "adam",
    "SOLVER.TOTAL_EPOCH": 3,
    "SOLVER.WARMUP_EPOCH": 0,
    "SOLVER.WARMUP_STEPS": 2,
    "SOLVER.SEARCH_EPOCH": 1,
    "SOLVER.AMP": "bf16",
    "SOLVER.DECAY": "none",
    "MODEL.HEAD_INIT": "zero",
    "MODEL.POOL": "avg",
    "MODEL.POS_EMBED_RESIZE": "bicubic",
    "MODEL.ATTENTION_TUNING.BLOCKS": [0],
    "MODEL.MLP_TUNING.BLOCKS": [0],
    "MODEL.BLOCK_TUNING.BLOCKS": [0],
    "MODEL.BLOCK.NUM_BLOCKS": 3,
    "MODEL.BOFT.BLOCK_SIZE": 8,
    "MODEL.FFT.FREQ": 100,
    "MODEL.PEFT.TYPE": "LOHA",
    "MODEL.PEFT.KWARGS": {"r": 2},
    "MODEL.PEFT.TARGETS": ["attn.proj"],
    "MODEL.PROMPT.PROJECT": 16,
    "MODEL.REPADAPTER.WIDTH": 4,
    "MODEL.REPADAPTER.GROUPS": 4,
    "MODEL.CONVPASS.INPUT": "residual",
    "MODEL.RLRR.SCALE_SHIFT": ["norm"],
    **{f"MODEL.{name}.INPUT": "residual" for name in ("ADAPTER", "HOULSBY")},
    "MODEL.ADAPTFORMER.INPUT": "norm",
    **{f"MODEL.{name}.TARGETS": ["mlp.fc1"] for name in ("LORA", "BOFT", "VERA", "FFT")},
}
# Settings beside which a key does something.
NEEDS = {
    "DATA.DECODER": {"DATA.JPEG_QUALITY": 50},
    "DATA.ANTIALIAS": {"DATA.CROPSIZE": 32, "DATA.INTERPOLATION": "bicubic"},
    "DATA.DROP_LAST": {"DATA.BATCH_SIZE": 5},
    "MODEL.POS_EMBED_RESIZE": {"DATA.CROPSIZE": 64},
    "SOLVER.EPS": {"SOLVER.OPTIMIZER": "adam"},
    "SOLVER.LAYER_DECAY": {"MODEL.TRANSFER_TYPE": "end2end"},
    "SOLVER.BIAS_MULTIPLIER": {"MODEL.TRANSFER_TYPE": "tinytl-bias"},
    "SOLVER.DECAY": {"SOLVER.WEIGHT_DECAY": 0.5},
    "SOLVER.SCHEDULER": {"SOLVER.WARMUP_EPOCH": 0},
    "SOLVER.MIN_LR": {"SOLVER.WARMUP_EPOCH": 0},
    "SOLVER.COOLDOWN_EPOCH": {"SOLVER.MIN_LR": 0.001},
    **{f"MODEL.{name}.INPUT": {"MODE": "parallel"} for name in ("ADAPTER", "HOULSBY")},
    "MODEL.ADAPTFORMER.MODE": {"INPUT": "norm"},
    "MODEL.PROMPT.NUM_DEEP_LAYERS": {"DEEP": True},
    "MODEL.PROMPT.REVERSE_DEEP": {"DEEP": True, "NUM_DEEP_LAYERS": 1},
    "MODEL.PROMPT.DEEP_SHARED": {"DEEP": True},
    "MODEL.PROMPT.FORWARD_DEEP_NOEXPAND": {"DEEP": True, "NUM_DEEP_LAYERS": 1},
    **{f"MODEL.{name}.REDUCTION_FACTOR": {"WIDTH": 0} for name in ("HOULSBY", "ADAPTFORMER")},
    **{f"MODEL.FFT.{key}": {"FREQ": 50} for key in ("FREQ", "SCALE", "TARGETS", "BIAS")},
}
# Where a key is read whose effect is tested with that part, or cannot be seen in training on a CPU.
ELSEWHERE = {
    "engine/results.py": ["OUTPUT_DIR"],
    "engine/trackers.py": ["WANDB", "MLFLOW"],
    "engine/run.py": ["DEVICE"],
    "engine/precision.py": ["CUDNN_BENCHMARK", "DETERMINISTIC", "SOLVER.TF32"],
    "engine/step.py": ["MODEL.COMPILE", "MODEL.COMPILE_MODE", "SOLVER.ACCUMULATE"],
    "engine/trainer.py": [
        *("MODEL.SAVE_CKPT", "SOLVER.SAVE_EVERY", "SOLVER.PATIENCE", "SOLVER.EVAL_EVERY", "SOLVER.BEST_TEST_EPOCH"),
        *("SOLVER.FSDP",),
    ],
    "engine/logistic.py": ["SOLVER.PENALTIES"],
    "engine/zero_shot.py": ["MODEL.HEAD_TEMPLATES", "MODEL.HEAD_CLASS_NAMES"],
    "engine/features.py": ["DATA.CACHE_FEATURES", "DATA.CACHE_FEATURES_GB", "DATA.CACHE_PLACE"],
    "engine/sensitivity.py": [
        f"MODEL.{name}.{key}" for name in ("SPT_LORA", "SPT_ADAPTER") for key in ("NUM_BATCHES", "BATCH_SIZE", "BUDGET")
    ],
    "models/methods/spt.py": [
        f"MODEL.{name}.{key}"
        for name in ("SPT_LORA", "SPT_ADAPTER")
        for key in ("ALLOCATION", "ALPHA", "BETA", "STRUCTURED_VECTOR", "STRUCTURED_ONLY")
    ],
    "models/methods/side.py": ["MODEL.SIDE.WEIGHTS"],
    "models/methods/ssf.py": ["MODEL.SSF.POOLED_NORM"],
    "models/methods/hf_peft.py": ["MODEL.PEFT.LOAD", "MODEL.BOFT.N_FACTOR"],
    "engine/what_to_keep.py": ["MODEL.RECOMPUTE", "MODEL.GRAD_CHECKPOINT"],
    "models/vit_models.py": ["DATA.FEATURE", "MODEL.WEIGHT_PATH", "MODEL.MODEL_ROOT"],
    "data/opened.py": [
        *("DATA.NAME", "DATA.DATAPATH", "DATA.NUMBER_CLASSES", "DATA.NO_TEST", "DATA.SOURCE"),
        "DATA.UNMEASURED",
        *("DATA.VERSION", "DATA.SHOTS", "DATA.SPLIT_SEED", "DATA.TRAIN_LIST", "DATA.VAL_LIST", "DATA.TEST_LIST"),
        *("DATA.VAL_FRACTION", "DATA.TEST_FRACTION", "DATA.CORRUPT", "DATA.CACHE", "DATA.CACHE_DIR", "DATA.CACHE_GB"),
        *("DATA.NUM_WORKERS",),
    ],
    "data/pixels.py": ["DATA.WHITE", "DATA.MAX_PIXELS"],
    "configs/checks.py": ["DATA.MULTILABEL"],
    "configs/facts.py": ["DATA.EVAL_BATCH_SIZE"],
    "engine/budget.py": ["SOLVER.MEMORY_GB"],
}
LISTED = {key for keys in ELSEWHERE.values() for key in keys}
KEYS = {name: key for name, key in all_keys().items() if len(key.choices) != 1}  # of one value there is no other
OF_METHODS = {f"MODEL.{config_name(name)}.{key}": (name, key) for name, m in METHODS.items() for key in m.defaults()}
TRIED = [name for name in KEYS if name not in LISTED]


def another(key: Key):
    """A value of ``key`` that is not its default."""
    if key.name in OTHERS:
        return OTHERS[key.name]
    if isinstance(key.default, bool):
        return not key.default
    if isinstance(key.default, list):
        return [choice for choice in key.choices if choice not in key.default] or key.default[:-1]
    if key.choices:
        return next(choice for choice in key.choices if choice not in (key.default, "", "auto"))
    candidates = (key.default + 1, key.default * 2, key.default / 2, 0.5)
    values = [type(key.default)(value) for value in candidates]
    return next(value for value in values if value != key.default and not key.problem(value))


def differ(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.shape != other.shape or not torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() != other.keys() or any(differ(one[key], other[key]) for key in one)
    return one != other


def test_every_key_is_tried_or_read_where_it_is_said_to_be():
    assert KEYS.keys() >= LISTED
    for file, keys in ELSEWHERE.items():
        nodes = list(ast.walk(ast.parse(Path("src", file).read_text())))
        read = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
        read |= {node.value.upper() for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        missing = [key for key in keys if key.rpartition(".")[2] not in read]
        assert not missing, f"{file} reads no {missing}"


@cache
def _method(name: str, keys: tuple) -> dict:
    """A tiny ViT with this method: what it is made of, what trains, and what it makes of images in training."""
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    model = make_model(name, **{f"MODEL__{config_name(name)}__{key}": thaw(value) for key, value in keys})
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    randomise(model)
    model.train()
    torch.manual_seed(7)
    outputs = model(images).detach()
    trained = [name for name, param in model.named_parameters() if param.requires_grad]
    return {"start": start, "trained": trained, "outputs": outputs, "wires": [*model.sites]}


def freeze(value):
    if isinstance(value, dict):
        return ("dict", tuple(value.items()))
    return ("list", *value) if isinstance(value, list) else value


def thaw(value):
    if isinstance(value, tuple):
        return dict(value[1]) if value[0] == "dict" else list(value[1:])
    return value


@pytest.mark.parametrize("name", [name for name in TRIED if name in OF_METHODS])
def test_every_key_of_a_method_changes_the_model(name):
    method, last = OF_METHODS[name]
    beside = NEEDS.get(name, {})
    plain = tuple((key, freeze(value)) for key, value in beside.items())
    changed = tuple((key, freeze(value)) for key, value in (beside | {last: another(KEYS[name])}).items())
    assert differ(_method(method, plain), _method(method, changed))


BASE = dict(zip(QUICK[::2], QUICK[1::2], strict=True)) | {
    "DATA.CROPSIZE": 16, "DATA.PERCENTAGE": 0.03, "DATA.BATCH_SIZE": 8, "DATA.TRAIN_SPLIT": "train",
    "DATA.PIXELS": "vpt",
    "SOLVER.OPTIMIZER": "sgd", "SOLVER.BASE_LR": 0.05, "SOLVER.TOTAL_EPOCH": 2, "SOLVER.WARMUP_EPOCH": 1,
    "SOLVER.SCHEDULE_PER": "epoch", "MODEL.TRANSFER_TYPE": "lora",
}  # fmt: skip


@cache
def _trained(settings: tuple) -> dict:
    """What two epochs of a few steps on 24 digits make of a model, without validation."""
    pairs = [str(thaw(part)) for setting in settings for part in setting]
    cfg = load_cfg("", pairs)
    data = open_data(cfg)
    loaders, _ = data.loaders(cfg, CPU)
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg, len(data.class_names))
    training = Training(cfg, model, {"train": loaders["train"]}, RunFolder(Path("/nonexistent")))
    training.save = training._write_metrics = lambda: None
    training.prepare()
    training.run(StopSignals())
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in training.rows]
    average = training.average.values if training.average else {}
    return {"rows": rows, "average": average, "state": model.tuned_state_dict()}


@pytest.mark.parametrize("name", [name for name in TRIED if name not in OF_METHODS])
def test_every_other_key_changes_what_is_trained(name):
    beside = BASE | NEEDS.get(name, {})
    changed = beside | {name: another(KEYS[name] if name not in beside else with_default(name, beside[name]))}
    assert differ(*(_trained(tuple((k, freeze(v)) for k, v in s.items())) for s in (beside, changed)))


def with_default(name: str, value) -> Key:
    """A key whose default is what the base of these tests says."""
    return replace(KEYS[name], default=type(KEYS[name].default)(value))
