"""What containers leave of a machine."""

import pytest

from src.utils import limits


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Writes files of a made-up /sys/fs/cgroup, for a process in the groups that ``membership`` names."""
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (limits.resource.RLIM_INFINITY,) * 2)

    def write(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_lowest_limit_on_the_way_up_counts(cgroup):
    files = {
        "job/step/memory.max": "max\n",
        "job/memory.max": "2000\n",
        "memory.max": "3000\n",
        "job/cpu.max": "150000 100000\n",
    }
    cgroup("0::/job/step\n", files)
    assert limits.memory_limit() == 2000
    assert limits.cpu_quota() == 1.5


def test_version_1_is_read_too(cgroup):
    files = {
        "memory/job/memory.limit_in_bytes": "4096\n",
        "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    cgroup("4:memory:/job\n2:cpu,cpuacct:/\n", files)
    assert limits.memory_limit() == 4096
    assert limits.cpu_quota() == 4


@pytest.mark.parametrize("membership", ["0::/\n", "0::/not/mounted/here\n", "3:memory:/\n"])
def test_no_limit(cgroup, membership):
    endless = {"memory.max": "max\n", "cpu.max": "max 100000\n", "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}
    cgroup(membership, endless)
    assert limits.memory_limit() is None
    assert limits.cpu_quota() is None


def test_ulimit_is_a_limit(cgroup, monkeypatch):
    cgroup("0::/\n", {"memory.max": "5000\n"})
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (4000, 8000))
    assert limits.memory_limit() == 4000


def test_system_without_cgroups_has_no_limit(cgroup):
    assert limits.memory_limit() is None
