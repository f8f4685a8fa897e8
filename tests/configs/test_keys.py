"""Keys: declared once, checked all at once and without torch, and never hashed differently."""

import os
import subprocess
import sys

import pytest

from src.configs import catalogue
from src.configs.config import ConfigError, changed, get_cfg, keys_of, load_cfg, load_cfg_text
from src.configs.keys import MACHINE, Section, declared, flag, number, numbers, one_of, some_of, whole, wholes
from src.configs.reference import all_keys, comments_in
from src.engine.results import run_folder

DIGITS = ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32"]
FIVE = "SOLVER.LR 0.1 SOLVER.OPTIMIZER lion SOLVER.SCHEDULER linear MODEL.TRANSFER_TYPE lora+end2end FREQFIT fourier"

# The last part of run folders' names, as they were before keys declared what they are part of.
OTHER = "SEED 7 SOLVER.BASE_LR 0.02 DATA.NUM_WORKERS 1 OUTPUT_DIR elsewhere MODEL.LORA.RANK 4 MODEL.SAVE_CKPT False"
HASHES = {
    "digits": ("lr0.005_wd0.01_seed42_75084874", "lr0.02_wd0.01_seed7_1bb85007"),
    "fewshot": ("lr0.005_wd0.0001_seed42_cf727cee", "lr0.02_wd0.0001_seed7_bd6df173"),
    "folder": ("lr0.002_wd0.01_seed42_9ecdd87f", "lr0.02_wd0.01_seed7_3d675f3f"),
    "methods/lora_study": ("lr0.005_wd0.01_seed42_ae87126d", "lr0.02_wd0.01_seed7_62430858"),
    "methods/peft_dora": ("lr0.005_wd0.01_seed42_2d18c769", "lr0.02_wd0.01_seed7_1dda881d"),
    "methods/spt_lora": ("lr0.001_wd0.0001_seed42_b50da976", "lr0.02_wd0.0001_seed7_5016afad"),
    "prompt/cub": ("lr0.1_wd0.01_seed42_f876b933", "lr0.02_wd0.01_seed7_2bcd9895"),
    "vtab": ("lr0.1_wd0.01_seed42_61cf42af", "lr0.02_wd0.01_seed7_02e3d3ad"),
    "zero_shot": ("lr3e-05_wd0.005_seed42_4fde942a", "lr0.02_wd0.005_seed7_901d7848"),
}


def problems(*pairs: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_cfg("", [*DIGITS, *pairs])
    return [line.removeprefix("  - ") for line in str(error.value).splitlines()[1:]]


@pytest.mark.parametrize("name", HASHES)
def test_run_folders_keep_their_names(name):
    for pairs, expected in zip(([], OTHER.split()), HASHES[name], strict=True):
        assert run_folder(load_cfg(f"configs/{name}.yaml", pairs)).path.name == expected


def test_the_keys_of_the_machine_are_those_that_they_were():
    """Another one would change the folders of runs that set it."""
    data = ("NUM_WORKERS", "CACHE", "CACHE_DIR", "CACHE_GB", "CACHE_PLACE", "CACHE_FEATURES", "CACHE_FEATURES_GB")
    others = ("OUTPUT_DIR", "DEVICE", "WANDB", "MLFLOW", "MODEL.MODEL_ROOT", "MODEL.SAVE_CKPT", "SOLVER.SAVE_EVERY")
    others += ("SOLVER.MEMORY_GB",)
    assert {*keys_of(MACHINE)} == {*others, *(f"DATA.{key}" for key in data)}


def test_what_belongs_to_the_machine_does_not_change_the_name():
    cfg = load_cfg("", DIGITS)
    for name in keys_of(MACHINE):
        key = all_keys()[name]
        other = {bool: "False", int: "9", float: "3.5"}.get(type(key.default), "elsewhere")
        value = "cuda:1" if name == "DEVICE" else next((c for c in key.choices if c != key.default), other)
        elsewhere = load_cfg("", [*DIGITS, name, value])
        assert name in changed(elsewhere)
        assert run_folder(elsewhere).path.name == run_folder(cfg).path.name


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        (whole(1, low=1), [1, 10**9], [0, -1]),
        (number(0.5, low=0, high=1), [0.0, 1.0], [-0.1, 1.1, float("nan"), float("inf")]),
        (number(0.5, above=0, below=1), [0.1, 0.9], [0.0, 1.0]),
        (number(0.5), [-5.0], [float("nan"), float("-inf")]),
        (whole(-1, low=2, also=(-1,)), [-1, 2], [0, 1, -2]),
        (one_of("a", {"a": 1, "b": 2}), ["a", "b"], ["", "c"]),
        (some_of(["a"], "abc", filled=True, distinct=True), [["a"], ["c", "b"]], [[], ["d"], ["a", "a"]]),
        (some_of(["a"]), [[], ["d", "d"]], []),
        (wholes([], lengths=(0, 2), low=1), [[], [3, 4]], [[3], [0, 1], [1.5, 2], [True, 2]]),
        (numbers([], lengths=(0, 3)), [[], [0, 0.5, 1]], [[1.0], [1, 2, "x"], [1, 2, float("nan")]]),
        (flag(True), [True, False], []),
    ],
)
def test_facts_tell_right_values_from_wrong_ones(key, right, wrong):
    assert [key.problem(value, "KEY") for value in right] == [""] * len(right)
    for value in wrong:
        assert key.problem(value, "KEY").startswith(f"KEY is {value!r}; ")


def test_a_declared_key_is_its_plain_default_and_may_get_another():
    section = Section()
    section.RATE = number(0.1, low=0)
    section.NAMES = some_of(["a"], "ab")
    section.RATE = 0.2
    assert dict(section) == {"RATE": 0.2, "NAMES": ["a"]}
    keys = declared(section, "A.")
    assert (keys["A.RATE"].default, keys["A.RATE"].low, keys["A.RATE"].name) == (0.2, 0, "A.RATE")
    section.NAMES.append("b")
    assert some_of(["a"], "ab").value() == ["a"]


def test_comments_are_those_above_the_keys():
    def keys(cfg):
        # What it is, on
        # two lines.
        cfg.ONE = 1
        cfg.TWO = 2

    assert comments_in(keys) == {"ONE": "What it is, on two lines.", "TWO": ""}


def test_five_problems_are_five_sentences():
    found = problems(*FIVE.split())
    for part in ("SOLVER.LR", "'lion'", "'linear'", "lora adds nothing", "'fourier'"):
        assert sum(part in sentence for sentence in found) == 1
    assert len(found) == 5


@pytest.mark.parametrize(
    ("pairs", "count"),
    [
        ("SOLVER.OPTIMIZER lion SOLVER.BASE_LR -1", 1),  # which lion may be able to choose
        ("MODEL.TRANSFER_TYPE end2ned SOLVER.LAYER_DECAY 0.7 SOLVER.FSDP True", 1),  # which are for end2end
        ("DATA.NAM cub DATA.NUMBER_CLASSES 10", 1),
        ("DATA.NAME nothing DATA.STD 0,1,1 DATA.NUMBER_CLASSES 3", 2),
        ("MODEL.TRANSFER_TYPE prompt MODEL.PROMPT.DEEP maybe MODEL.PROMPT.DEEP_SHARED True", 1),
        ("MODEL.TRANSFER_TYPE prompt MODEL.PROMPT.DEEP_SHARED True MODEL.PROMPT.NUM_TOKENS 0", 2),
        ("MODEL.TRANSFER_TYPE lorra+lora+lora+blok", 3),
        ("MODEL.TRANSFER_TYPE partial-0", 1),
        ("DATA.FEATURE timm:nothing DATA.AUTO_AUGMENT nothing SOLVER.LR 1", 3),  # two of them need timm
        ("SOLVER.MOMENTUM 7 SOLVER.MOMENTUM 8 SOLVER.EMA 1", 2),
    ],
)
def test_every_problem_is_one_sentence_and_no_consequence_is_reported(pairs, count):
    found = problems(*pairs.split())
    assert len(found) == count, found


def test_the_last_value_of_a_key_counts():
    assert load_cfg("", [*DIGITS, "SOLVER.MOMENTUM", "7", "SOLVER.MOMENTUM", "0.5"]).SOLVER.MOMENTUM == 0.5


def python(code: str, **env: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


REPORTS = f"""
import sys
from src.configs.config import ConfigError, load_cfg
from src.configs.reference import all_keys
try:
    load_cfg("configs/digits.yaml", {FIVE.split()!r})
except ConfigError as error:
    print(error)
print(len(all_keys()), all_keys()["SOLVER.MOMENTUM"].comment)
print([name for name in ("torch", "timm", "torchvision", "peft") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    """A cache folder in which a process has left the catalogue."""
    folder = tmp_path_factory.mktemp("cache")
    python(REPORTS, XDG_CACHE_HOME=str(folder))
    return str(folder)


def test_problems_are_reported_without_torch(cache):
    *report, keys, modules = python(REPORTS, XDG_CACHE_HOME=cache).splitlines()
    assert [line.removeprefix("  - ") for line in report[1:]] == problems(*FIVE.split())
    assert keys == f"{len(all_keys())} Momentum of sgd."
    assert modules == "[]"


def test_the_cache_says_what_the_code_says(cache):
    names = "keys_of('machine'), load_cfg('configs/digits.yaml').dump()"
    code = f"import sys; from src.configs.config import *; print(repr(({names}))); assert 'torch' not in sys.modules"
    found = python(code, XDG_CACHE_HOME=cache)
    assert found.strip() == repr((keys_of(MACHINE), load_cfg("configs/digits.yaml").dump()))
    live = catalogue.from_code()
    assert vars(catalogue.from_json(catalogue.to_json(live))) == vars(live)


def test_train_reports_problems_without_torch(cache):
    call = "train.main(['--config-file', 'digits', 'SOLVER.LR', '0.1'])"
    code = f"import sys, train; print({call}, 'torch' in sys.modules)"
    assert python(code, XDG_CACHE_HOME=cache).strip() == "2 False"


def broken(cache: str, tmp_path, content: str | None) -> tuple:
    """The cache's file with ``content``, or in the place of its folder; and what it should hold."""
    (whole,) = catalogue.Path(cache, "vitune").glob("config-*.json")
    file = tmp_path / "vitune" / whole.name
    if content is None:
        file.parent.write_text("not a folder")
    else:
        file.parent.mkdir()
        file.write_text(content)
    return file, whole.read_text()


def test_a_process_with_a_broken_cache_loads_the_code(cache, tmp_path):
    file, whole = broken(cache, tmp_path, "{")
    code = "import sys; from src.configs.config import get_cfg; print(get_cfg().SEED, 'torch' in sys.modules)"
    assert python(code, XDG_CACHE_HOME=str(tmp_path)).strip() == "42 True"
    assert file.read_text() == whole


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": {}}', '{"keys": {"SEED": 1}}', None])
def test_a_broken_cache_is_as_good_as_none(cache, tmp_path, monkeypatch, content):
    file, whole = broken(cache, tmp_path, content)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert vars(catalogue._cached.__wrapped__()) == vars(catalogue.from_code())
    assert content is None or file.read_text() == whole


def test_a_method_added_by_a_program_is_known(monkeypatch):
    from src.models.method import Method
    from src.models.vit_models import METHODS

    class Mine(Method):
        folds = True

        @staticmethod
        def defaults():
            cfg = Section()
            cfg.RANK = whole(2, low=1)
            return cfg

    monkeypatch.setitem(METHODS, "mine", Mine)
    assert get_cfg().MODEL.MINE.RANK == 2
    cfg = load_cfg("", [*DIGITS, "MODEL.TRANSFER_TYPE", "mine", "MODEL.MINE.RANK", "3"])
    assert load_cfg_text(cfg.dump()) == cfg
    assert "at least 1" in problems("MODEL.TRANSFER_TYPE", "mine", "MODEL.MINE.RANK", "0")[0]
    assert "mine adds nothing" in problems("MODEL.TRANSFER_TYPE", "mine+end2end")[0]
