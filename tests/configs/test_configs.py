"""Configs: every shipped YAML loads and builds, VPT's and FreqFiT's load unchanged, and mistakes are all reported."""

import logging
from pathlib import Path

import pytest
import torch
import yaml

from src.configs.config import ConfigError, changed, flatten, get_cfg, load_cfg, load_cfg_text
from src.configs.legacy import RENAMED, RETIRED
from src.configs.reference import all_keys
from src.engine.sensitivity import spt_method
from src.models.head import ZeroShotHead
from src.models.vit_backbones.build import create_vit
from src.models.vit_backbones.zoo import find_backbone
from src.models.vit_models import TunedViT, parse

# Sweeps and what they are based on: test_sweep_files.py.
YAMLS = sorted(p for p in Path("configs").rglob("*.yaml") if p.parent.name not in ("sweeps", "repro"))
DIGITS = ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32"]


@pytest.mark.parametrize("path", [p for p in YAMLS if not p.name.startswith("base-")], ids=str)
def test_yaml_loads_and_builds(path):
    cfg = load_cfg(path)
    row = find_backbone(cfg.DATA.FEATURE)
    methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    methods.pop(spt_method(cfg), None)  # it is built from the task's images
    with torch.device("meta"):
        vit = create_vit(row, (cfg.DATA.CROPSIZE, cfg.DATA.CROPSIZE))
        head = ZeroShotHead(vit.num_features, 8, 2).state_dict()  # for those that start from one
        model = TunedViT(vit, methods, cfg.MODEL, max(2, cfg.DATA.NUMBER_CLASSES), head)
    assert model.num_trained()["head"] > 0
    assert path.read_text().startswith("# ")


# What VPT's files say (settings only), with the values that need care: null, "None", their spelling, retired keys.
VPT_BASE = """
NUM_GPUS: 1
NUM_SHARDS: 1
OUTPUT_DIR: ""
RUN_N_TIMES: 1
MODEL:
  TRANSFER_TYPE: "prompt"
  TYPE: "ssl-vit"
  LINEAR: {MLP_SIZES: []}
  PROMPT: {LOCATION: prepend, INITIATION: random, NUM_DEEP_LAYERS: null, CLSEMB_PATH: ""}
SOLVER:
  SCHEDULER: "cosine"
  PATIENCE: 300
  LOSS: "softmax"
  OPTIMIZER: "sgd"
  MOMENTUM: 0.9
  WEIGHT_DECAY: 1e-4
  LOG_EVERY_N: 100
  WARMUP_EPOCH: 10
  TOTAL_EPOCH: 100
DATA:
  NAME: ""
  NUMBER_CLASSES: -1
  DATAPATH: ""
  FEATURE: "sup_vitb16_224"
  BATCH_SIZE: 128
  NUM_WORKERS: 8
  PIN_MEMORY: True
"""
VPT_CUB = """
_BASE_: "../base-prompt.yaml"
RUN_N_TIMES: 1
DATA: {NAME: "CUB", DATAPATH: "", NUMBER_CLASSES: 200, MULTILABEL: False}
MODEL: {TYPE: "vit"}
SOLVER: {BASE_LR: 0.1, WEIGHT_DECAY: 0.01}
"""
FREQFIT_LINE = [
    "MODEL.TRANSFER_TYPE", "lora", "MODEL.LORA.RANK", "8", "MODEL.LORA.ALPHA", "8", "MODEL.TYPE", "vit",
    "DATA.BATCH_SIZE", "64", "DATA.FEATURE", "sup_vitb16_imagenet21k", "DATA.NAME",
    'vtab-dsprites(predicted_attribute="label_x_position",num_classes=16)', "DATA.NUMBER_CLASSES", "16",
    "SOLVER.BASE_LR", "0.1", "SOLVER.WEIGHT_DECAY", "0", "SOLVER.OPTIMIZER", "sgd", "SEED", "42",
    "MODEL.MODEL_ROOT", "pretrained", "DATA.DATAPATH", "", "OUTPUT_DIR", "results/seed42", "FREQFIT", "None",
    "MODEL.ADAPTER.REDUCATION_FACTOR", "16", "SOLVER.SEARCH_EPOCH", "None",
]  # fmt: skip


@pytest.fixture
def vpt_files(tmp_path) -> Path:
    (tmp_path / "prompt").mkdir()
    (tmp_path / "base-prompt.yaml").write_text(VPT_BASE)
    (tmp_path / "prompt" / "cub.yaml").write_text(VPT_CUB)
    return tmp_path / "prompt" / "cub.yaml"


def test_vpt_yaml_chain_loads(vpt_files):
    cfg = load_cfg(vpt_files)
    assert (cfg.DATA.NAME, cfg.DATA.NUMBER_CLASSES, cfg.DATA.BATCH_SIZE) == ("CUB", 200, 128)
    assert (cfg.MODEL.TRANSFER_TYPE, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY) == ("prompt", 0.1, 0.01)
    assert (cfg.MODEL.TYPE, cfg.MODEL.PROMPT.NUM_DEEP_LAYERS) == ("vit", 0)


def test_freqfit_command_line_loads(vpt_files):
    cfg = load_cfg(vpt_files, FREQFIT_LINE)
    assert cfg.FREQFIT == ""
    assert cfg.MODEL.ADAPTER.REDUCTION_FACTOR == 16
    assert (cfg.MODEL.LORA.ALPHA, cfg.SOLVER.WEIGHT_DECAY) == (8.0, 0.0)


def test_freqfit_line_with_the_filter(vpt_files):
    assert load_cfg(vpt_files, [*FREQFIT_LINE, "FREQFIT", "freqfit"]).FREQFIT == "freqfit"


def test_retired_keys_warn_once_and_say_what_replaced_them(vpt_files, caplog):
    with caplog.at_level(logging.WARNING):
        load_cfg(vpt_files, ["NUM_GPUS", "2"])
    about = [r.getMessage() for r in caplog.records if "NUM_GPUS" in r.getMessage()]
    assert len(about) == 1
    assert "DEVICE" in about[0]
    assert any("MODEL.LINEAR.MLP_SIZES" in r.getMessage() and "MLP_NUM" in r.getMessage() for r in caplog.records)


def test_retired_and_renamed_keys_are_no_keys_of_ours():
    ours = flatten(get_cfg())
    assert not ours.keys() & (RETIRED.keys() | RENAMED.keys())
    assert set(RENAMED.values()) <= ours.keys()


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["SOLVER.BASE_LRR", "1"], "SOLVER.BASE_LR"),
        (["MODEL.LORA.RNAK", "4"], "MODEL.LORA.RANK"),
        (["BASE_LR", "1"], "SOLVER.BASE_LR"),
        (["LORA.RANK", "4"], "MODEL.LORA.RANK"),
        (["MODEL.LORA.RANK", "four"], "whole number"),
        (["MODEL.LORA.RANK", "4.5"], "whole number"),
        (["MODEL.PROMPT.DEEP", "1"], "True or False"),
        (["SOLVER.BASE_LR", "fast"], "a number"),
        (["MODEL.LORA.RANK", "0"], "at least 1"),
        (["MODEL.TRANSFER_TYPE", "lorra"], "known: linear"),
        (["MODEL.TRANSFER_TYPE", "lora", "MODEL.LORA.TARGETS", "attn.q,attn.x"], "attn.x"),
        (["FREQFIT", "FreqFit"], "freqfit_real"),
        (["DATA.FEATURE", "sup_vitb17"], "did you mean sup_vitb16_224, "),
        (["DATA.FEATURE", "timm:resnet5"], "did you mean resnet50"),
        (["DATA.NAME", "digit"], "digits"),
        (["DATA.NUMBER_CLASSES", "11"], "digits has 10 classes"),
        (["SOLVER.OPTIMIZER", "lion"], "'adamw'"),
        (["SOLVER.PATIENCE", "0"], "at least 1"),
        (["MODEL.TYPE", "swin"], "'vit'"),
        (["DATA.IMAGE_SIZE", "[32]"], "[height, width]"),
        (["SEED"], "no value"),
    ],
)
def test_mistakes_say_what_and_what_is_known(pairs, says):
    if "LORA" in pairs[0]:
        pairs = ["MODEL.TRANSFER_TYPE", "lora", *pairs]
    with pytest.raises(ConfigError, match="problems") as error:
        load_cfg("", [*DIGITS, *pairs])
    assert says in str(error.value)


def test_freqfits_whole_tree_loads(tmp_path, caplog):
    """Their BOFT, VERA and FFT keys too, which are those of our methods."""
    file = tmp_path / "tree.yaml"
    file.write_text(
        VPT_BASE.replace(" PROMPT:", " BOFT: {BLOCK_SIZE: 4, N_FACTOR: 2}\n  FFT: {FREQ: 3000, SCALE: 300}\n  PROMPT:")
        .replace(
            "LINEAR: {", "VERA: {R: 256}\n  ADAPTER: {REDUCATION_FACTOR: 8, STYLE: Pfeiffer}\n  LINEAR: {DROPOUT: 0.1, "
        )
        .replace("NUM_GPUS: 1", "FREQFIT: null\nSEED: null\nDBG: false\nDIST_BACKEND: nccl\nNUM_GPUS: 1")
    )
    with caplog.at_level("WARNING"):
        cfg = load_cfg(file, ["DATA.NAME", "CUB"])
    assert (cfg.FREQFIT, cfg.SEED) == ("", 42)
    assert (cfg.MODEL.BOFT.BLOCK_SIZE, cfg.MODEL.VERA.R, cfg.MODEL.FFT.SCALE) == (4, 256, 300.0)
    assert not {"BOFT", "VERA", "FFT"} & set(caplog.text.replace(".", " ").split())


def test_every_problem_is_reported_at_once(tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text("SOLVER:\n  BASE_LRR: 1\n  TOTAL_EPOCH: many\nDATUM: {NAME: digits}\n")
    with pytest.raises(ConfigError) as error:
        load_cfg(file, ["MODEL.LORA.RANK", "x"])
    for part in ("SOLVER.BASE_LRR", "SOLVER.TOTAL_EPOCH", "DATUM.NAME", "MODEL.LORA.RANK", "broken.yaml"):
        assert part in str(error.value)
    with pytest.raises(ConfigError) as error:
        load_cfg("", ["DATA.NAME", "digits", "DATA.FEATURE", "nothing", "SOLVER.OPTIMIZER", "x", "FREQFIT", "x"])
    for part in ("DATA.FEATURE", "SOLVER.OPTIMIZER", "FREQFIT"):
        assert part in str(error.value)


@pytest.mark.parametrize("content", ["a: [", "_BASE_: nowhere.yaml\n", "_BASE_: bad.yaml\n", "- 1\n", "", "\x00", None])
def test_yaml_that_cannot_be_read_is_a_config_error(tmp_path, content):
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_cfg(file)


def test_saved_config_gives_the_same_config():
    cfg = load_cfg("", [*DIGITS, "MODEL.TRANSFER_TYPE", "lora", "MODEL.LORA.TARGETS", "attn.q,attn.v"])
    again = load_cfg_text(cfg.dump())
    assert again == cfg
    assert changed(again)["MODEL.LORA.TARGETS"] == ["attn.q", "attn.v"]


def test_arguments_of_another_library_are_one_value(tmp_path):
    """KWARGS: its keys are peft's, whatever they are called and however deep they go."""
    file = tmp_path / "peft.yaml"
    file.write_text("MODEL: {TRANSFER_TYPE: peft, PEFT: {KWARGS: {r: 4, rank_pattern: {blocks.0.attn.qkv: 2}}}}\n")
    cfg = load_cfg(file, [*DIGITS, "MODEL.PEFT.KWARGS.use_dora", "True", "MODEL.PEFT.KWARGS.r", "6"])
    assert cfg.MODEL.PEFT.KWARGS == {"r": 6, "rank_pattern": {"blocks.0.attn.qkv": 2}, "use_dora": True}
    assert load_cfg_text(cfg.dump()) == cfg
    assert changed(cfg)["MODEL.PEFT.KWARGS"]["r"] == 6
    line = [*DIGITS, "MODEL.TRANSFER_TYPE", "peft", "MODEL.PEFT.TYPE", "loha", "MODEL.PEFT.KWARGS"]
    assert load_cfg("", [*line, "{'r': 2, 'alpha': 4}"]).MODEL.PEFT.KWARGS == {"r": 2, "alpha": 4}
    assert load_cfg("", [*line, "{r: 2}"]).MODEL.PEFT.KWARGS == {"r": 2}
    with pytest.raises(ConfigError, match="arguments and their values"):
        load_cfg("", [*line, "8"])


def test_config_is_frozen():
    with pytest.raises(AttributeError):
        load_cfg("", DIGITS).SEED = 1


def test_every_key_is_declared_with_a_comment():
    for name, key in all_keys().items():
        assert key.comment.endswith((".", ")")), name


def test_configs_say_nothing_about_this_machine():
    for path in YAMLS:
        assert yaml.safe_load(path.read_text()) is not None
        assert "/home" not in path.read_text()
