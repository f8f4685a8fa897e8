"""vitune doctor: what this machine has, and what would stop a run."""

import errno
import json
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from src.tools.doctor import __main__ as tool
from src.tools.doctor import devices, machine, software, storage
from src.tools.doctor.section import Section, content, size


def report(capsys, *arguments: str, status: int = 0) -> dict:
    assert tool.main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose NVIDIA driver reports a GPU."""
    monkeypatch.setattr(devices.shutil, "which", lambda name: f"/usr/bin/{name}")
    done = SimpleNamespace(returncode=0, stdout="535.104.05, NVIDIA A100\n535.104.05, NVIDIA A100\n", stderr="")
    monkeypatch.setattr(devices.subprocess, "run", lambda *args, **kwargs: done)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_report_has_versions_devices_and_places(capsys, tmp_path):
    found = report(capsys, "OUTPUT_DIR", str(tmp_path), "DEVICE", "cpu")
    assert found["can_start"] is True
    assert found["errors"] == []
    assert found["facts"]["Versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["facts"]["Devices"]["runs use"] == "cpu (DEVICE cpu)"
    assert found["facts"]["Folders"]["OUTPUT_DIR"].startswith(f"{tmp_path}; ")
    assert found["facts"]["Weights"]["in pretrained"] == ["vit_micro_glyphs"]
    assert found["facts"]["Data sets"]["digits"] == "always"


def test_text_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert tool.main(["DEVICE", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Versions"
    assert lines[-1].startswith("a run can start")
    assert all(len(line) <= 80 for line in lines if "/" not in line)  # paths are never broken


def test_no_secret_of_the_environment_is_printed(capsys, monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert tool.main(["DEVICE", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "hunter2" not in output
    assert "OMP_NUM_THREADS=1" in output


def test_config_names_its_folders(capsys, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(f"OUTPUT_DIR: {tmp_path}/runs\nDATA: {{DATAPATH: {tmp_path}/none}}\n")
    found = report(capsys, str(config), "DEVICE", "cpu", status=1)
    assert found["facts"]["Folders"]["OUTPUT_DIR"].startswith(f"{tmp_path}/runs, not there yet; ")
    assert found["errors"] == [f"DATA.DATAPATH {tmp_path}/none is not there"]
    assert not (tmp_path / "runs").exists()


def test_unwritable_output_stops_a_run(capsys, tmp_path):
    (tmp_path / "file").touch()
    found = report(capsys, "OUTPUT_DIR", f"{tmp_path}/file", "DEVICE", "cpu", status=1)
    assert [error for error in found["errors"] if "OUTPUT_DIR" in error and "is not a folder" in error]
    assert found["can_start"] is False


def test_unwritable_cache_is_a_warning(capsys, tmp_path):
    (tmp_path / "file").touch()
    found = report(capsys, "DATA.CACHE_DIR", f"{tmp_path}/file", "DEVICE", "cpu")
    assert [warning for warning in found["warnings"] if "DATA.CACHE_DIR" in warning]


def test_folder_that_takes_no_files_is_unwritable(tmp_path, monkeypatch):
    def refuse(dir):
        assert dir == tmp_path
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    assert storage.unwritable(tmp_path / "runs" / "digits") == "Read-only file system"


def test_device_that_is_not_there_stops_a_run(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = report(capsys, "DEVICE", "cuda", status=1)
    assert [error for error in found["errors"] if "torch sees no GPU" in error]


def test_settings_with_problems_end_with_2(capsys):
    assert tool.main(["DEVICES", "cpu"]) == 2
    assert "DEVICES" in capsys.readouterr().err


def test_missing_and_old_packages_are_named(monkeypatch):
    have = {"torch": "2.5.1", "timm": None}
    version = software.installed
    monkeypatch.setattr(software, "installed", lambda name: have.get(name, version(name)))
    wanted = [Requirement("torch>=2.6"), Requirement("timm>=1.0.31"), Requirement("numpy>=1")]
    monkeypatch.setattr(software, "required", lambda: wanted)
    section = software.versions()
    assert section.warnings == ["torch 2.5.1 is older than ViTune is tested with: pip install -U 'torch>=2.6'"]
    assert section.errors == ["timm is not installed: pip install 'timm>=1.0.31'"]


def test_extras_are_those_of_the_package():
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, (extra, _) in software.OPTIONAL.items():
        assert name in {Requirement(line).name for line in extras[extra]}


def test_what_installs_missing_extras_is_one_command(monkeypatch):
    monkeypatch.setattr(software, "installed", lambda name: None if name in ("wandb", "mlflow") else "1.0")
    facts = software.optional().facts
    assert facts["wandb"] == "not installed; for WANDB"
    assert facts["to add them"].endswith("[wandb,mlflow]'")


@pytest.mark.parametrize(
    ("threads", "quota", "warning"),
    [
        ("64", None, "only 8 cores"),
        ("", 2.0, "export OMP_NUM_THREADS=2"),
        ("1", None, "uses one of 8"),
        ("8", None, ""),
    ],
)
def test_threads_that_do_not_fit_the_cores_are_a_warning(monkeypatch, threads, quota, warning):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    warnings = list(machine._thread_warnings(8, quota))
    assert len(warnings) == bool(warning)
    assert warning in "".join(warnings)


def test_memory_limit_counts(monkeypatch):
    monkeypatch.setattr(machine, "memory_limit", lambda: 2**29)
    section = machine.processor()
    assert section.facts["memory limit"].startswith("512.0 MiB")
    assert "only 512.0 MiB" in section.warnings[0]


def test_processes_that_a_run_would_wait_for_are_a_warning(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [warning for warning in machine.processor().warnings if "unset WORLD_SIZE" in warning]


def test_torch_for_cpus_beside_a_gpu_is_a_warning(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    section = devices.devices("auto")
    assert section.facts["NVIDIA driver"] == "535.104.05, for 2 GPUs"
    assert section.facts["torch is for"] == "CPU only"
    (warning,) = section.warnings
    assert "a build for CPUs only" in warning


def test_old_driver_is_a_warning(gpu, monkeypatch):
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update it.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    (warning,) = devices.devices("auto").warnings
    assert "too old (found version 12020)" in warning
    assert "update the driver" in warning


def test_hidden_gpus_are_a_warning(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (warning,) = devices.devices("auto").warnings
    assert "CUDA_VISIBLE_DEVICES" in warning


def test_driver_that_hangs_is_reported(gpu, monkeypatch):
    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired(args[0], 20)

    monkeypatch.setattr(devices.subprocess, "run", hang)
    assert devices._driver() == "does not respond (TimeoutExpired)"


def test_gpus_are_described(gpu, monkeypatch):
    facts = SimpleNamespace(name="NVIDIA A100", major=8, minor=0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90", "sm_100"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: facts)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (2 * 2**30, 40 * 2**30))
    section = Section("Devices")
    devices._gpus(section)
    assert section.facts["cuda:0"] == "NVIDIA A100, 2.0 GiB free of 40.0 GiB, sm_80, bfloat16"
    assert "no kernels for cuda:0" in section.warnings[0]
    assert "only 2.0 GiB free" in section.warnings[1]


@pytest.mark.parametrize(
    ("kernels", "capability", "runs"),
    [
        (["sm_80", "sm_90a"], (8, 6), True),
        (["sm_80", "sm_90a"], (9, 0), True),
        (["sm_80"], (9, 0), False),
        (["sm_75", "compute_80"], (9, 0), True),
        (["sm_90", "sm_120"], (8, 0), False),
        (["sm_100", "sm_120"], (12, 0), True),
    ],
)
def test_kernels_run_on_their_own_and_later_gpus(kernels, capability, runs):
    assert devices.has_kernels(kernels, *capability) is runs


def test_library_that_cannot_be_imported_stops_a_run(monkeypatch):
    monkeypatch.setattr(devices, "IMPORTED", ("no_such_library",))
    section = devices.devices("cpu")
    assert "no_such_library cannot be imported" in section.errors[0]


def test_sections_become_one_object():
    parts = [Section("A", {"a": "1"}, ["w"]), Section("B", {}, [], ["e"])]
    assert content(parts) == {
        "can_start": False,
        "facts": {"A": {"a": "1"}, "B": {}},
        "warnings": ["w"],
        "errors": ["e"],
    }


def test_sizes_are_for_people():
    assert [size(n) for n in (10, 2048, 3 * 2**30, 5 * 2**41)] == ["10 bytes", "2.0 KiB", "3.0 GiB", "10.0 TiB"]
