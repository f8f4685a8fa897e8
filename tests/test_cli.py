"""``vitune``: every command has help that names it, mistakes name what was meant, shells complete words."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

from src import __version__, cli
from src.configs.files import ConfigError
from src.tools import command
from src.utils.signals import REQUEUE, Interrupted

HEAVY = {"torch", "timm", "torchvision", "peft", "tensorflow", "tensorflow_datasets", "matplotlib", "fastapi"}


def fresh(code: str) -> str:
    """What ``code`` prints in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: vitune {name}")
    assert f"\n    vitune {name}" in text


def test_no_command_loads_torch_before_it_works():
    code = """
import sys
from src import cli
for name in cli.COMMANDS:
    cli.tool(name)
print(*sys.modules)
"""
    assert not HEAVY & set(fresh(code).split())


def test_the_overview_has_every_command(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)


def test_a_misspelt_command_is_told_the_nearest(capsys):
    assert cli.main(["tran"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"vitune {__version__}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vitune rep", {"report", "repro"}),
        ("vitune train --ev", {"--eval-only"}),
        ("vitune train dig", {"digits"}),
        ("vitune train digits SOLVER.OPTI", {"SOLVER.OPTIMIZER"}),
        ("vitune train digits MODEL.LORA.RA", {"MODEL.LORA.RANK"}),
        ("vitune train digits SOLVER.OPTIMIZER ada", {"adam", "adamw"}),
        ("vitune train digits SOLVER.FSDP T", {"True"}),
        ("vitune train digits MODEL.TRANSFER_TYPE adaptf", {"adaptformer"}),
        ("vitune train digits MODEL.TRANSFER_TYPE lora+adaptf", {"lora+adaptformer"}),
        ("vitune train digits DATA.FEATURE vit_mi", {"vit_micro_glyphs"}),
        ("vitune train DATA.NAME dts DATA.NAME dtd-", {"dtd-full"}),
        ("vitune tune sweeps/fre", {"sweeps/freqfit", "sweeps/freqfit_pairs"}),
    ],
)
def test_the_shell_completes(line, expected, tmp_path):
    """As argcomplete's shell code asks: the line so far in the environment, words on a file."""
    answer = tmp_path / "answer"
    environment = os.environ | {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    code = "import sys; from src import cli; sys.exit(cli.main([]))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert {word.strip() for word in answer.read_text().split("\n")} == expected


def do(work, *argv: str, **settings) -> int:
    def add_options(parser):
        command.add_config(parser)
        parser.add_argument("--flag", action="store_true")

    return command.run("try", "help", add_options, work, argv, **settings)


@pytest.mark.parametrize(
    ("argv", "config", "opts"),
    [
        (["digits", "SEED", "1"], "digits", ["SEED", "1"]),
        (["SEED", "1"], "", ["SEED", "1"]),
        (["SEED", "1", "--config-file", "mine.yaml"], "mine.yaml", ["SEED", "1"]),
        (["my/own.yaml"], "my/own.yaml", []),
        (["SWEEP.OVER.method", "[lora]"], "", ["SWEEP.OVER.method", "[lora]"]),
        (["solver.base_lr", "0.1"], "", ["solver.base_lr", "0.1"]),  # a misspelt key, which the config will name
        (["sweeps/photos", "--flag", "SEED", "1"], "sweeps/photos", ["SEED", "1"]),
    ],
)
def test_the_first_word_is_a_config_unless_it_is_a_key(argv, config, opts):
    found = []
    assert do(lambda args: found.append((args.config_file, args.opts)), *argv) == 0
    assert found == [(config, opts)]


def test_two_configs_are_an_error(capsys):
    assert do(lambda args: 0, "digits", "--config-file", "mine.yaml") == 2
    assert "two configs are given, mine.yaml and digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(ConfigError("x"), 2), (ValueError("x"), 1), (OSError("x"), 1), (MemoryError("x"), 1)]
)
def test_errors_of_users_are_one_line_and_a_status(error, status, capsys, monkeypatch):
    def work(args):
        raise error

    assert do(work) == status
    assert capsys.readouterr().err == "error: x\n"
    monkeypatch.setenv("VITUNE_DEBUG", "1")
    with pytest.raises(type(error)):
        do(work)


def test_errors_of_ours_keep_their_traceback():
    def work(args):
        raise KeyError("x")

    with pytest.raises(KeyError):
        do(work)


@pytest.mark.parametrize(("goes_on", "status"), [("go on", REQUEUE), ("", 143)])
def test_what_was_stopped_says_whether_it_goes_on(goes_on, status, capsys):
    def work(args):
        raise Interrupted("SIGTERM")

    assert do(work, goes_on=goes_on) == status
    assert capsys.readouterr().err == ("stopped by SIGTERM; go on\n" if goes_on else "stopped by SIGTERM\n")
