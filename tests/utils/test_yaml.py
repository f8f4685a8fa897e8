"""YAML that people or strangers write: keys that occur twice, words, bombs, and whatever chance makes of it."""

import contextlib
import random
import time
from pathlib import Path

import pytest
import yaml

from src.configs.config import ConfigError, flatten, load_cfg, load_cfg_text
from src.configs.reference import all_keys
from src.tools.tune.plan import Plan
from src.tools.tune.spec import load_sweep
from src.utils.yaml import parse_yaml, read_value, safe_load

DIGITS = {"DATA": {"NAME": "digits", "FEATURE": "vit_micro_glyphs", "CROPSIZE": 32}}
PAIRS = ["DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.CROPSIZE", "32"]
BASE = yaml.safe_dump(DIGITS)


def problems(path: str | Path, *pairs: str, sweep: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as error:
        Plan(load_sweep(path, pairs)) if sweep else load_cfg(path, pairs)
    return str(error.value).splitlines()[1:]


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("SOLVER: {BASE_LR: 0.5}\nSEED: 1\nSOLVER: {WARMUP_EPOCH: 0}\n", "SOLVER", "lines 1 and 3"),
        ("SOLVER:\n  BASE_LR: 0.5\n  MOMENTUM: 0.9\n  BASE_LR: 0.1\n", "SOLVER.BASE_LR", "lines 2 and 4"),
        ("SOLVER: {BASE_LR: 0.5}\nSOLVER.BASE_LR: 0.1\n", "SOLVER.BASE_LR", "lines 1 and 2"),
        ("SEED: 1\nSEED: 1\n'SEED': 2\n", "SEED", "lines 1, 2 and 3"),
        ("SOLVER: {BASE_LR: 1.0, BASE_LR: 0.1}\n", "SOLVER.BASE_LR", "line 1"),
        ("MODEL: {PEFT: {KWARGS: {r: 4, r: 8}}}\n", "MODEL.PEFT.KWARGS.r", "line 1"),
        (
            "MODEL:\n  ADAPTER:\n    REDUCATION_FACTOR: 8\n    REDUCTION_FACTOR: 4\n",
            "MODEL.ADAPTER.REDUCTION_FACTOR",
            "lines 3 and 4",
        ),
        ("SOLVER: &a {BASE_LR: 1.0}\n<<: {SEED: 1}\n<<: {SEED: 2}\n", "<<", "lines 2 and 3"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_lines(tmp_path, text, key, lines):
    (tmp_path / "base.yaml").write_text(text)
    (tmp_path / "run.yaml").write_text("_BASE_: base.yaml\n")
    for name in ("base.yaml", "run.yaml"):
        (said, *_) = [one for one in problems(tmp_path / name, *PAIRS) if "twice" in one]
        assert f"{tmp_path / 'base.yaml'}, {key} occurs twice, in {lines}" in said


def test_a_saved_config_says_no_key_twice():
    with pytest.raises(ConfigError, match="SEED occurs twice, in lines 2 and 3"):
        load_cfg_text(f"FREQFIT: ''\nSEED: 1\nSEED: 2\n{BASE}")


@pytest.mark.parametrize(
    ("section", "key", "lines"),
    [
        ("OVER: {SEED: [1, 2]}\n  OVER: {DATA.NAME: [digits]}", "SWEEP.OVER", "lines 7 and 8"),
        ("OVER:\n    SEED: [1, 2]\n    SEED: [3]", "SWEEP.OVER.SEED", "lines 8 and 9"),
        ("OVER:\n    method:\n      a: {SEED: 1}\n      a: {SEED: 2}", "SWEEP.OVER.method.a", "lines 9 and 10"),
        ("SEEDS: [{SEED: 1, SEED: 2}]", "SWEEP.SEEDS.0.SEED", "line 7"),
    ],
)
def test_a_sweep_says_no_key_twice(tmp_path, section, key, lines):
    (tmp_path / "sweep.yaml").write_text(f"{BASE}SWEEP:\n  PROTOCOL: fixed\n  {section}\n")
    assert any(f"{key} occurs twice, in {lines}" in one for one in problems(tmp_path / "sweep.yaml", sweep=True))


def test_a_value_of_the_command_line_says_no_key_twice(tmp_path):
    assert any("twice" in one for one in problems("", *PAIRS, "MODEL.PEFT.KWARGS", "{'r': 4, 'r': 8}"))
    assert any("twice" in one for one in problems("", *PAIRS, "MODEL.PEFT.KWARGS", "{r: 4, r: 8}"))


def test_what_is_merged_may_be_said_again(tmp_path):
    """``<<`` gives what a section does not say itself, as in YAML's own specification."""
    (tmp_path / "merge.yaml").write_text(
        f"{BASE}SOLVER: &solver {{BASE_LR: 0.5, MOMENTUM: 0.8}}\n"
        "SWEEP:\n  PROTOCOL: fixed\n  FINAL: {SEED: 1}\n  OVER:\n    rate:\n"
        "      one: &one {SOLVER.BASE_LR: 0.5, SOLVER.MOMENTUM: 0.8}\n"
        "      two: {<<: *one, SOLVER.BASE_LR: 0.1}\n      three: {<<: *one, SOLVER.MOMENTUM: 0.1}\n"
    )
    choices = load_sweep(tmp_path / "merge.yaml").over["rate"]
    assert [choice.settings for choice in choices] == [
        {"SOLVER.BASE_LR": 0.5, "SOLVER.MOMENTUM": 0.8},
        {"SOLVER.BASE_LR": 0.1, "SOLVER.MOMENTUM": 0.8},
        {"SOLVER.BASE_LR": 0.5, "SOLVER.MOMENTUM": 0.1},
    ]


def test_what_a_file_is_based_on_is_kept_where_it_says_nothing(tmp_path):
    (tmp_path / "one.yaml").write_text(f"{BASE}SOLVER: {{BASE_LR: 0.5, MOMENTUM: 0.8}}\n")
    (tmp_path / "two.yaml").write_text("_BASE_: one.yaml\nSOLVER.MOMENTUM: 0.7\n")
    (tmp_path / "three.yaml").write_text("_BASE_: [one.yaml, two.yaml]\nSOLVER:\nSEED: 3\n")
    cfg = load_cfg(tmp_path / "three.yaml")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SEED) == (0.5, 0.7, 3)


def test_a_file_that_is_based_on_itself_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\n")
    (said,) = problems(tmp_path / "a.yaml")
    assert "a.yaml -> " in said
    assert said.endswith("based on itself")
    for i in range(10):  # 4 ** 10 files to read
        (tmp_path / f"{i}.yaml").write_text(f"_BASE_: [{', '.join([f'{i + 1}.yaml'] * 4)}]\n")
    (tmp_path / "10.yaml").write_text(BASE)
    (said,) = problems(tmp_path / "0.yaml")
    assert "more than 100 files" in said


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 30)}]}}\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(3000))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "aliases"),
        (MERGES, "aliases"),
        (CHAIN, "aliases"),
        ("a: &a [*a]\n", "contains it"),
        ("a: &a {b: *a}\n", "contains it"),
        ("[" * 100_000, "deep|depth"),
        ("- " * 5000 + "x", "deep|depth"),
        ("{a: " * 300 + "1" + "}" * 300, "deep"),
        ("a: " + "x" * 2**21, "larger"),
        ("a: &a " + "x" * 10_000 + "\nb: [" + ",".join(["*a"] * 10_000) + "]", "aliases"),
        ("a: 2020-99-99", "month"),
        ("a: " + "9" * 5000, "digits"),
        ("a: !!python/object/apply:os.system [echo]", "python"),
        ("a: !!bool maybe", "maybe"),
    ],
    ids=range(14),
)  # fmt: skip
def test_no_text_takes_the_machine(text, says):
    start = time.process_time()
    for read in (parse_yaml, lambda text: load_cfg_text(text)):
        with pytest.raises((yaml.YAMLError, ConfigError), match=says):
            read(text)
    assert time.process_time() - start < 2


def test_a_device_without_end_is_no_settings(tmp_path):
    assert "larger than" in problems(Path("/dev/zero"))[0]
    assert "directory" in problems(tmp_path)[0]


@pytest.mark.parametrize("said", ["off", "'off'", "Off", "false", "False", "no"])
def test_off_is_a_word_where_off_is_a_choice(tmp_path, said):
    """ "no" and "Off" are no choices: they are named as they were written, never as False."""
    (tmp_path / "off.yaml").write_text(f"{BASE}SOLVER: {{AMP: {said}}}\n")
    if said.strip("'").lower() in ("off", "false") and said != "Off":
        assert load_cfg(tmp_path / "off.yaml").SOLVER.AMP == "off"
    else:
        assert f"SOLVER.AMP is {said!r}; known: 'off'" in problems(tmp_path / "off.yaml")[0]


@pytest.mark.parametrize(("word", "means"), [("yes", True), ("On", True), ("no", False), ("OFF", False)])
def test_yes_and_no_are_still_true_and_false_where_those_are_meant(tmp_path, word, means):
    (tmp_path / "words.yaml").write_text(
        f"{BASE}MODEL: {{PROMPT: {{DEEP: {word}}}, PEFT: {{KWARGS: {{use_dora: {word}}}}}}}\n"
    )
    pairs = ["MODEL.PROMPT.DEEP", word, "MODEL.PEFT.KWARGS.use_dora", word]
    for cfg in (load_cfg(tmp_path / "words.yaml"), load_cfg("", [*PAIRS, *pairs])):
        assert cfg.MODEL.PROMPT.DEEP is means
        assert {"use_dora": means} == cfg.MODEL.PEFT.KWARGS


def test_off_is_a_word_in_sweeps_too(tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        f"{BASE}SWEEP:\n  PROTOCOL: fixed\n  SEEDS: [1]\n  OVER: {{SOLVER.AMP: [off, bf16], DATA.CACHE: [off]}}\n"
    )
    for pairs in ([], ["SWEEP.OVER.SOLVER.AMP", "[off, bf16]"], ["SWEEP.OVER.SOLVER.AMP", "['off', 'bf16']"]):
        plan = Plan(load_sweep(tmp_path / "sweep.yaml", pairs))
        assert [cell.over for cell in plan.cells] == [
            {"SOLVER.AMP": "off", "DATA.CACHE": "off"},
            {"SOLVER.AMP": "bf16", "DATA.CACHE": "off"},
        ]


def test_an_unknown_key_hides_no_bad_value(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        f"{BASE}SOLVER: {{BASE_LRR: 1, OPTIMIZER: lion, BASE_LR: -2}}\nSEED: 1\nSEED: 2\n"
    )
    said = "\n".join(problems(tmp_path / "bad.yaml", "MODEL.LORA.RANK", "x", "SOLVER.MOMENTUM", "7", "FREQFIT", "x"))
    for part in ("BASE_LRR", "'lion'", "BASE_LR is -2", "SEED occurs twice", "MODEL.LORA.RANK", "MOMENTUM is 7", "'x'"):
        assert part in said


def test_messages_have_a_bearable_length():
    with pytest.raises(ConfigError) as error:
        load_cfg("", [*PAIRS, "SEED", "x" * 100_000])
    assert len(str(error.value)) < 1000


def test_home_is_home_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = [name for name, key in all_keys().items() if key.is_path]
    assert {"OUTPUT_DIR", "DATA.CACHE_DIR", "MODEL.WEIGHT_PATH", "MODEL.SIDE.WEIGHTS", "MODEL.PEFT.LOAD"} <= {*keys}
    (tmp_path / "home.yaml").write_text(f"_BASE_: ~/base.yaml\n{yaml.safe_dump(dict.fromkeys(keys, '~/a folder'))}")
    (tmp_path / "base.yaml").write_text(BASE)
    said = flatten(load_cfg("~/home.yaml"))
    assert {said[key] for key in keys} == {f"{tmp_path}/a folder"}
    said = flatten(load_cfg("", [*PAIRS, *(text for key in keys for text in (key, "~/x"))]))
    assert {said[key] for key in keys} == {f"{tmp_path}/x"}
    assert "there is no such home folder" in problems("", *PAIRS, "OUTPUT_DIR", "~nobody-of-this-name/x")[0]
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert "DATA.CACHE_DIR in the command line is '~/x'" in problems("", *PAIRS, "DATA.CACHE_DIR", "~/x")[0]


TEXTS = [
    f"{BASE}SOLVER: {{BASE_LR: 0.1, AMP: off}}\nMODEL:\n  TRANSFER_TYPE: lora\n  LORA: {{RANK: 4, TARGETS: [q]}}\n",
    f"_BASE_: base.yaml\n{BASE}SWEEP:\n  OVER: {{DATA.NAME: [digits], method: {{a: {{SEED: 1}}}}}}\n"
    "  TUNE: {SOLVER.BASE_LR: {log_uniform: [0.1, 1]}}\n  SEARCH: asha\n  ASHA: {FACTOR: 3}\n  SEEDS: [1, {SEED: 2}]\n",
]
PARTS = [
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        "&a ",
        "*a",
        "!!set ",
        "<<: ",
        "\n",
        "  ",
        "\t",
        "'",
        '"',
        "null",
        "-1",
        "1e999",
        ".nan",
        "~",
    ),
    *("\ufeff", "%", "|", "[[]]", "{a: {}}", "SWEEP", "é", "TUNE", "True", "2020-01-01", "0x1", "=", "? "),
]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_chance_writes_is_a_config_or_an_error(tmp_path, seed):
    draw = random.Random(seed)
    (tmp_path / "base.yaml").write_text(BASE)
    for _ in range(60):
        text = draw.choice(TEXTS)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(text))
            text = text[:at] + draw.choice([draw.choice(PARTS), ""]) + text[at + draw.choice([0, 0, 1, 5]) :]
        data = bytearray(text[: draw.choice([len(text), draw.randrange(1, len(text))])], "utf-8")
        if draw.random() < 0.3:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (tmp_path / "fuzz.yaml").write_bytes(data)
        for read in (load_cfg, load_sweep, lambda path: load_cfg_text(path.read_text(errors="replace"))):
            with contextlib.suppress(ConfigError):
                read(tmp_path / "fuzz.yaml")


@pytest.mark.parametrize(
    "text", ["[" * 5000, "{" * 5000, "(" * 5000, "-" * 5000 + "1", "1" * 5000, "{'a': [}", "&a [*a]", "\x00"]
)
def test_values_of_a_command_line_are_values_or_errors(text):
    with contextlib.suppress(yaml.YAMLError):
        read_value(text)
    problems("", *PAIRS, "MODEL.PEFT.KWARGS", text)


def test_words_are_read_as_yaml_1_2_does():
    assert safe_load("{a: off, b: yes, c: true, d: 'true', no: 1}") == {
        "a": "off",
        "b": "yes",
        "c": True,
        "d": "true",
        "no": 1,
    }
