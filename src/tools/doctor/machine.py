"""Cores, memory, threads and GPUs."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

from ...utils.limits import cpu_quota, memory_limit
from .section import Section, size

LITTLE_MEMORY = 2 * 2**30
# Printed where they are set. None of them is a secret.
ENVIRONMENT = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_AFFINITY",
    "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_CUDA_ALLOC_CONF",
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_JOB_ID", "VITUNE_DEBUG", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME",
    "HF_HUB_OFFLINE", "TFDS_DATA_DIR",
)  # fmt: skip


def processor() -> Section:
    """CPU, memory and what limits them; the environment variables that matter."""
    section = Section("Processor and memory")
    cores, quota = usable_cores(), cpu_quota()
    limit = f", at most {quota:g} of them at a time (cgroup)" if quota else ""
    section.facts["CPU"] = cpu_name()
    section.facts["cores"] = f"{cores} of {os.cpu_count()}{limit}"
    memory, most = psutil.virtual_memory(), memory_limit()
    section.facts["memory"] = f"{size(memory.available)} free of {size(memory.total)}"
    if most is not None:
        section.facts["memory limit"] = f"{size(most)} (cgroup or ulimit)"
    if (free := min(memory.available, most or memory.available)) < LITTLE_MEMORY:
        section.warnings.append(f"only {size(free)} of memory: a backbone larger than the demo's may not fit")
    section.facts["environment"] = [f"{name}={os.environ[name]}" for name in ENVIRONMENT if name in os.environ]
    section.warnings += _thread_warnings(cores, quota)
    if (count := os.environ.get("WORLD_SIZE", "1")) != "1":
        section.warnings.append(
            f"WORLD_SIZE is {count}: a run started here waits for other processes; unset WORLD_SIZE RANK LOCAL_RANK "
            "to train alone, or start it with torchrun"
        )
    return section


def _thread_warnings(cores: int, quota: float | None) -> Iterator[str]:
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > cores:
        yield f"OMP_NUM_THREADS is {given}, but only {cores} cores can be used: export OMP_NUM_THREADS={cores}"
    elif not given and quota and quota < cores:
        yield f"{cores} threads share the time of {quota:g} cores: export OMP_NUM_THREADS={max(1, int(quota))}"
    elif given == "1" and cores > 1:
        yield f"OMP_NUM_THREADS is 1: a run on this CPU uses one of {cores} cores; unset it, unless runs share them"


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's name, as its maker writes it where the system says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
