"""The README keeps its word: its commands parse, its counts are right, its worked example runs as it stands."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import timm
from conftest import make_vit

import train
from src.configs.config import load_cfg
from src.engine.results import run_folder
from src.engine.run import run
from src.models import vit_models
from src.tools.prepare import __main__ as prepare
from src.tools.prepare import tasks as preparing
from src.tools.tune import __main__ as tune
from src.tools.tune.plan import Plan
from src.tools.tune.spec import load_sweep

README = Path("README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


COMMANDS = [
    line.split("  #")[0].strip()
    for text in blocks("bash")
    for line in text.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize("line", [c for c in COMMANDS if "train.py" in c])
def test_train_commands_parse(line):
    words = shlex.split(line)
    args = train.parse_args(words[words.index("train.py") + 1 :])
    assert args.run_dir or args.list_tasks or Path(args.config_file).is_file()
    if args.config_file:
        load_cfg(args.config_file, args.opts)


@pytest.mark.parametrize("line", [c for c in COMMANDS if "src.tools.tune" in c or "ray_slurm.sh" in c])
def test_sweep_commands_have_a_plan(line):
    words = shlex.split(line, comments=True)
    args = tune.parse_args(words[words.index("--config-file") :])
    assert Plan(load_sweep(args.config_file, args.opts)).runs


@pytest.mark.parametrize("status", [0, 75])
def test_the_ray_script_makes_a_cluster_for_the_sweep_and_requeues_on_75(tmp_path, status):
    """With stand-ins for Slurm's srun and scontrol, Ray and Python, which say how they were called."""
    stubs = {
        "bin/scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "$@" >> requeued; fi',
        "bin/srun": 'while [[ $1 = -* ]]; do if [[ $1 =~ ^(-w|--exclude)$ ]]; then shift; fi; shift; done; "$@"',
        ".venv/bin/ray": 'echo "$@" >> ray',
        ".venv/bin/python": 'printf "%s|" "$@" > started; sleep 2; s=$STATUS',
    }
    for name, text in stubs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\ns=0\n{text}\nexit $s\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]"}
    environment |= {"SLURM_JOB_ID": "12345", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    environment |= {"SLURM_GPUS_ON_NODE": "4", "GPUS_PER_RUN": "0.5", "STATUS": str(status)}
    script = Path("configs/ray_slurm.sh").absolute()
    done = subprocess.run([script, "--config-file", "a b.yaml"], cwd=tmp_path, env=environment, check=False, timeout=60)
    assert done.returncode == status
    arguments = (tmp_path / "started").read_text().split("|")[:-1]
    assert arguments[:6] == ["-m", "src.tools.tune", "--ray", "node1:32345", "--gpus-per-run", "0.5"]
    assert arguments[6:] == ["--config-file", "a b.yaml"]
    said = (tmp_path / "ray").read_text()
    assert "start --head --port 32345 --num-cpus 8 --num-gpus 4 --block" in said
    assert "start --address node1:32345 --num-cpus 8 --num-gpus 4 --block" in said
    assert (tmp_path / "requeued").is_file() == (status == 75)


@pytest.mark.parametrize("status", [0, 1, 75])
def test_the_slurm_script_starts_every_process_and_requeues_on_75(tmp_path, status):
    """With an srun and a scontrol that do what Slurm's do, and a Python that says how it was called."""
    stubs = {
        "bin/scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "$@" >> requeued; fi',
        "bin/srun": 'shift; for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2 "$@" || s=$?; done',
        ".venv/bin/python": 'echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR:$MASTER_PORT $*" >> started; s=$STATUS',
    }
    for name, text in stubs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\ns=0\n{text}\nexit $s\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]"}
    environment |= {"SLURM_JOB_ID": "12345", "STATUS": str(status)}
    script = Path("configs/slurm.sh").absolute()
    assert os.access(script, os.X_OK)
    done = subprocess.run([script, "SEED", "4", "OUTPUT_DIR", "my runs"], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == status
    started = (tmp_path / "started").read_text().splitlines()
    assert started == [f"{i}/2 {i} node1:32345 train.py SEED 4 OUTPUT_DIR my runs --resume" for i in (0, 1)]
    assert (tmp_path / "requeued").is_file() == (status == 75)
    if status == 75:
        assert (tmp_path / "requeued").read_text() == "requeue 12345\n"


@pytest.fixture
def run_sh(tmp_path):
    """run.sh with a Python that only says how it was called: its arguments as a list."""
    (tmp_path / "run.sh").write_text(Path("run.sh").read_text())
    (tmp_path / "env_setup.sh").write_text("")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    stub = tmp_path / ".venv" / "bin" / "python"
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)

    def call(line: str) -> list[str]:
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return call


def settings(args: list[str]) -> tuple[str, list[str], list[str]]:
    assert args[:3] == ["-m", "src.tools.runs", "--config-file"]
    assert args[4] == "--seeds"
    config = args[3]
    if config.startswith("/"):
        config = config[config.index("configs/") :]
    return config, args[5].split(), args[6:]


@pytest.mark.parametrize(
    "line", [c for c in COMMANDS if "run.sh" in c and "tests/" not in c and c != "bash run.sh digits"]
)
def test_run_sh_commands_parse(line, run_sh):
    config, seeds, pairs = settings(run_sh(line))
    assert len(seeds) in (0, 3)
    load_cfg(config, pairs)


def test_run_sh_arguments_mean_what_freqfits_mean(run_sh):
    line = "bash run.sh cifar100 sup_vitb16_imagenet21k 64 0.1 0.01 50 16 freqfit MODEL.TRANSFER_TYPE prompt"
    config, seeds, pairs = settings(run_sh(f"{line} DATA.DATAPATH ''"))
    cfg = load_cfg(config, pairs)
    assert seeds == []  # src.tools.runs then takes VPT's five
    assert (cfg.DATA.NAME, cfg.DATA.FEATURE, cfg.DATA.BATCH_SIZE) == ("cifar100", "sup_vitb16_imagenet21k", 64)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.FREQFIT) == (0.1, 0.01, "freqfit")
    assert (cfg.MODEL.PROMPT.NUM_TOKENS, cfg.MODEL.ADAPTER.REDUCTION_FACTOR) == (50, 16)
    assert (cfg.MODEL.TRANSFER_TYPE, cfg.DATA.DATAPATH) == ("prompt", "")


def test_run_sh_arguments_are_optional_from_the_right(run_sh):
    config, _, pairs = settings(run_sh("bash run.sh digits vit_micro_glyphs 16 SOLVER.TOTAL_EPOCH 3"))
    assert config == "configs/digits.yaml"
    assert pairs == [
        "DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.BATCH_SIZE", "16", "SOLVER.TOTAL_EPOCH", "3"
    ]  # fmt: skip
    config, _, pairs = settings(run_sh("bash run.sh cifar100 sup_vitb16_imagenet21k 64 0.1 0.01 0 0 None"))
    assert load_cfg(config, pairs).FREQFIT == ""
    assert "MODEL.PROMPT.NUM_TOKENS" not in pairs


@pytest.mark.parametrize("data", ["CUB", "nabirds", "OxfordFlowers", "StanfordDogs", "StanfordCars", "dtd", "folder"])
def test_run_sh_has_a_config_for_every_data_set(run_sh, data):
    config, _, pairs = settings(run_sh(f"bash run.sh {data}"))
    assert data == load_cfg(config, pairs).DATA.NAME


def test_demo_is_the_digits_alone(run_sh):
    assert run_sh("bash run.sh digits") == ["-m", "src.tools.demo"]
    assert run_sh("SEEDS='1 2' bash run.sh digits") == ["-m", "src.tools.demo", "--seeds", "1 2"]


def test_table_of_methods_is_what_list_methods_prints(capsys):
    assert train.main(["--list-methods"]) == 0
    table = re.search(r"<!-- python train.py --list-methods -->\n(.*)<!-- end -->", README, flags=re.S)[1]
    assert table == capsys.readouterr().out


@pytest.mark.parametrize("line", [c for c in COMMANDS if "src.tools." in c])
def test_tool_commands_name_tools(line):
    module = re.search(r"src\.tools\.\w+", line)[0]
    if importlib.util.find_spec(module).submodule_search_locations:  # a package
        module += ".__main__"
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(module).main(["--help"])
    assert stop.value.code == 0


def test_call_in_code_runs_as_it_stands(tmp_path, monkeypatch):
    code = next(text for text in blocks("python") if "from src.api" in text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: make_vit())
    names = {}
    exec(code, names)
    assert sum(p.numel() for p in names["trained"]) == sum(names["model"].num_trained().values())


def test_worked_example_runs_as_it_stands(tmp_path, monkeypatch):
    code = next(text for text in blocks("python") if "class IA3" in text)
    module = types.ModuleType("src.models.methods.ia3")
    module.__package__ = "src.models.methods"
    exec(compile(code, "ia3.py", "exec"), module.__dict__)
    line = next(text for text in blocks("python") if text.strip().startswith('"ia3"'))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    added = eval("{" + line.strip() + "}", module.__dict__)
    for name, method in added.items():
        monkeypatch.setitem(vit_models.METHODS, name, method)
    (tmp_path / "ia3.yaml").write_text(
        next(text for text in blocks("yaml") if "ia3" in text).replace(
            "../digits.yaml", str(Path("configs/digits.yaml").absolute())
        )
    )
    pairs = ["FREQFIT", "freqfit", "OUTPUT_DIR", str(tmp_path), "DATA.PERCENTAGE", "0.1"]
    cfg = load_cfg(tmp_path / "ia3.yaml", pairs)
    result = run(cfg, run_folder(cfg))
    assert result["parameters"]["by_part"]["ia3"] == 4 * (2 * 64 + 4 * 64)


def test_data_in_code_runs_as_it_stands():
    (text,) = (block for block in blocks("python") if "open_data" in block)
    names = {}
    exec(text, names)
    images, labels = next(names["loaders"]["train"].epoch(0))
    assert images.shape[1:] == (3, 32, 32)
    assert len(images) == len(labels)
    assert names["left_out"] == []
    assert len(names["data"].splits["val"].keys) == 200


def test_prepare_commands_parse():
    setup = Path("VTAB_SETUP.md").read_text()
    lines = [
        line.split("  #")[0] for line in (README + setup).splitlines() if line.startswith("python -m src.tools.prepare")
    ]
    assert len(lines) > 8
    for line in lines:
        arguments = shlex.split(line)[3:]
        if arguments[0] == "convert":
            prepare.parse_convert(arguments[1:])
        else:
            args = prepare.parse_prepare([sys.executable if "/bin/python" in text else text for text in arguments])
            preparing.named_tasks(args.tasks)
