"""Every code block of the README and the pages is known to a test, and every command in them is understood."""

import re
import shlex
import sys
import tomllib
from itertools import chain

import pytest
import yaml
from blocks import BLOCKS, PAGES, blocks
from commands import module_arguments, vitune
from paths import ROOT
from scripts import run_sh_in, run_sh_settings

from src import cli
from src.configs.config import load_cfg
from src.tools.prepare import tasks as preparing
from src.tools.tune.plan import Plan
from src.tools.tune.spec import load_sweep

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS = list(dict.fromkeys(command for block in blocks("bash") for command in block.commands))


def starting_with(*words: str) -> list[str]:
    """The commands that start with ``words``, without variables that are set in front of them."""
    start = re.compile(r"^(\w+=('[^']*'|\"[^\"]*\"|\S*) )*" + re.escape(" ".join(words)) + r"(\s|$)")
    return [command for command in COMMANDS if start.match(command)]


KINDS = {
    kind: starting_with(*kind.split())
    for kind in (
        "vitune", "eval", "python train.py", "python -m src.tools", "torchrun", "sbatch",
        "bash run.sh", "bash tests/run.sh", "bash env_setup.sh", "pip install", "mkdocs build", ".venv/bin/ruff",
        "python -m venv",
    )
}  # fmt: skip
KINDS["python -m src.tools"] = [c for c in COMMANDS if c.startswith("python -m src.tools.")]


def test_every_block_has_a_language_and_a_test():
    assert {block.language for block in BLOCKS} <= {"bash", "python", "yaml", "text"}
    unknown = [command for command in COMMANDS if not any(command in known for known in KINDS.values())]
    assert not unknown


def test_no_page_hides_code_from_the_tests():
    """Markdown also takes indented lines for code, and blocks in lists are indented: neither is found by FENCE."""
    for path in PAGES:
        outside = re.sub(r"^```.*\n(?:.*\n)*?```$", "", path.read_text(), flags=re.M)
        assert not re.findall(r"^\s*(```|~~~).*", outside, flags=re.M), path
        assert not re.findall(r"\n\n(    .*)", outside), path


@pytest.mark.parametrize("command", KINDS["vitune"])
def test_vitune_commands_are_understood(command):
    words = [sys.executable if word.endswith("/bin/python") else word for word in shlex.split(command)[1:]]
    args = vitune(words)
    if words[0] == "tune":
        assert Plan(load_sweep(args.config_file, args.opts)).runs
    elif words[0] == "prepare" and hasattr(args, "tasks"):
        preparing.named_tasks(args.tasks)
    elif getattr(args, "config_file", ""):
        load_cfg(args.config_file, args.opts)


@pytest.mark.parametrize("command", KINDS["python train.py"] + KINDS["torchrun"])
def test_train_commands_are_understood(command):
    words = shlex.split(command)
    args = vitune(["train", *words[words.index("train.py") + 1 :]])
    if args.config_file:
        load_cfg(args.config_file, args.opts)


@pytest.mark.parametrize("command", KINDS["sbatch"])
def test_slurm_commands_are_understood(command):
    script, *words = shlex.split(command)[1:]
    assert (ROOT / script).is_file()
    if script.endswith("ray_slurm.sh"):
        args = vitune(["tune", *words])
        assert Plan(load_sweep(args.config_file, args.opts)).runs
    else:
        args = vitune(["train", *words])
        load_cfg(args.config_file, args.opts)


@pytest.mark.parametrize("command", KINDS["bash run.sh"])
def test_run_sh_commands_are_understood(command, tmp_path):
    passed_on = run_sh_in(tmp_path)(command)
    if passed_on[:2] in (["-m", "src.tools.demo"], ["-m", "src.tools.demo_studies"]):
        return
    if passed_on[:2] == ["-m", "src.tools.fit"]:
        assert module_arguments("src.tools.fit", passed_on[2:])
        return
    config, seeds, pairs = run_sh_settings(passed_on)
    assert len(seeds) in (0, 3)
    load_cfg(config, pairs)


@pytest.mark.parametrize("command", KINDS["python -m src.tools"])
def test_tool_commands_are_understood(command):
    module, *words = shlex.split(command)[2:]
    assert module_arguments(module, words)


@pytest.mark.parametrize("command", KINDS["eval"])
def test_completion_commands_print_what_a_shell_evaluates(command, capsys):
    shell = re.fullmatch(r'eval "\$\(vitune completion (\w+)\)"', command)[1]
    assert cli.main(["completion", shell]) == 0
    assert "vitune" in capsys.readouterr().out


@pytest.mark.parametrize("command", KINDS["pip install"])
def test_pip_installs_extras_that_exist(command):
    for extras in re.findall(r"\.\[(.*?)\]", command):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_page_of_dependencies_has_every_one_and_no_other():
    every = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    names = {re.match(r"[\w-]+", text)[0] for text in every} - {"vitune"}
    rows = re.findall(r"^\| (?:`.*` \| )?([^|`]+) \|", (ROOT / "docs/pages/dependencies.md").read_text(), flags=re.M)
    on_page = {re.match(r"[\w-]+", name)[0] for row in rows for name in row.split(", ")}
    assert on_page - {"package", "extra"} == names


@pytest.mark.parametrize("command", KINDS["bash tests/run.sh"] + KINDS["bash env_setup.sh"] + KINDS["mkdocs build"])
def test_files_in_commands_exist(command):
    words = [word for word in shlex.split(command) if re.search(r"\.(sh|py|yml)$", word)]
    assert words
    assert all((ROOT / word).is_file() for word in words)


@pytest.mark.parametrize("block", [b for b in blocks("yaml") if b.page != "docs/pages/adding/method.md"], ids=str)
def test_sweeps_have_a_plan(block, tmp_path):
    text = re.sub(r"(?m)^_BASE_: ", f"_BASE_: {ROOT / 'configs'}/", block.text)
    assert "SWEEP" in yaml.safe_load(text)
    (tmp_path / "sweep.yaml").write_text(text)
    assert Plan(load_sweep(tmp_path / "sweep.yaml", [])).runs


def test_the_readme_is_short_and_has_its_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    assert {"bash run.sh digits", "bash tests/run.sh"} <= {c for b in blocks("bash", "README.md") for c in b.commands}


def test_commands_in_sentences_exist():
    spans = [span for path in PAGES for span in re.findall(r"`vitune ([a-z]+)[^`]*`", path.read_text())]
    assert spans
    assert set(spans) <= {*cli.COMMANDS, "completion"}
