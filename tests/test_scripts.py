"""The shell scripts pass on what they are given: run.sh, and those for Slurm."""

import os
import subprocess
from pathlib import Path

import pytest
from scripts import run_sh_in, run_sh_settings

from src.configs.config import load_cfg


@pytest.mark.parametrize(("folder", "status"), [(".venv/bin/", 0), (".venv/bin/", 75), ("bin/", 0)])
def test_the_ray_script_makes_a_cluster_for_the_sweep_and_requeues_on_75(tmp_path, folder, status):
    """With stand-ins for Slurm's srun and scontrol, Ray and ViTune, which record how they were called."""
    stubs = {
        "bin/scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "$@" >> requeued; fi',
        "bin/srun": 'while [[ $1 = -* ]]; do if [[ $1 =~ ^(-w|--exclude)$ ]]; then shift; fi; shift; done; "$@"',
        folder + "ray": 'echo "$@" >> ray',
        folder + "vitune": 'printf "%s|" "$@" > started; sleep 2; s=$STATUS',
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
    assert arguments[:5] == ["tune", "--ray", "node1:32345", "--gpus-per-run", "0.5"]
    assert arguments[5:] == ["--config-file", "a b.yaml"]
    calls = (tmp_path / "ray").read_text()
    assert "start --head --port 32345 --num-cpus 8 --num-gpus 4 --block" in calls
    assert "start --address node1:32345 --num-cpus 8 --num-gpus 4 --block" in calls
    assert (tmp_path / "requeued").is_file() == (status == 75)


@pytest.mark.parametrize(("folder", "status"), [(".venv/bin/", 0), (".venv/bin/", 1), ("bin/", 75)])
def test_the_slurm_script_starts_every_process_and_requeues_on_75(tmp_path, folder, status):
    """With an srun and a scontrol that do what Slurm's do, and a ViTune that records how it was called."""
    stubs = {
        "bin/scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "$@" >> requeued; fi',
        "bin/srun": 'shift; for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2 "$@" || s=$?; done',
        folder + "vitune": 'echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR:$MASTER_PORT $*" >> started; s=$STATUS',
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
    assert started == [f"{i}/2 {i} node1:32345 train SEED 4 OUTPUT_DIR my runs --resume" for i in (0, 1)]
    assert (tmp_path / "requeued").is_file() == (status == 75)
    if status == 75:
        assert (tmp_path / "requeued").read_text() == "requeue 12345\n"


@pytest.fixture
def run_sh(tmp_path):
    return run_sh_in(tmp_path)


def test_run_sh_arguments_mean_what_freqfits_mean(run_sh):
    line = "bash run.sh cifar100 sup_vitb16_imagenet21k 64 0.1 0.01 50 16 freqfit MODEL.TRANSFER_TYPE prompt"
    config, seeds, pairs = run_sh_settings(run_sh(f"{line} DATA.DATAPATH ''"))
    cfg = load_cfg(config, pairs)
    assert seeds == []  # src.tools.runs then takes VPT's five
    assert (cfg.DATA.NAME, cfg.DATA.FEATURE, cfg.DATA.BATCH_SIZE) == ("cifar100", "sup_vitb16_imagenet21k", 64)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.FREQFIT) == (0.1, 0.01, "freqfit")
    assert (cfg.MODEL.PROMPT.NUM_TOKENS, cfg.MODEL.ADAPTER.REDUCTION_FACTOR) == (50, 16)
    assert (cfg.MODEL.TRANSFER_TYPE, cfg.DATA.DATAPATH) == ("prompt", "")


def test_run_sh_arguments_are_optional_from_the_right(run_sh):
    config, _, pairs = run_sh_settings(run_sh("bash run.sh digits vit_micro_glyphs 16 SOLVER.TOTAL_EPOCH 3"))
    assert config == "configs/digits.yaml"
    assert pairs == [
        "DATA.NAME", "digits", "DATA.FEATURE", "vit_micro_glyphs", "DATA.BATCH_SIZE", "16", "SOLVER.TOTAL_EPOCH", "3"
    ]  # fmt: skip
    config, _, pairs = run_sh_settings(run_sh("bash run.sh cifar100 sup_vitb16_imagenet21k 64 0.1 0.01 0 0 None"))
    assert load_cfg(config, pairs).FREQFIT == ""
    assert "MODEL.PROMPT.NUM_TOKENS" not in pairs


@pytest.mark.parametrize("data", ["CUB", "nabirds", "OxfordFlowers", "StanfordDogs", "StanfordCars", "dtd", "folder"])
def test_run_sh_has_a_config_for_every_data_set(run_sh, data):
    config, _, pairs = run_sh_settings(run_sh(f"bash run.sh {data}"))
    assert data == load_cfg(config, pairs).DATA.NAME


def test_demo_is_the_digits_alone(run_sh):
    assert run_sh("bash run.sh digits") == ["-m", "src.tools.demo"]
    assert run_sh("SEEDS='1 2' bash run.sh digits") == ["-m", "src.tools.demo", "--seeds", "1 2"]
