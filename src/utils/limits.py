"""What a container, a batch system or ulimit leaves of a machine's memory and cores."""

import resource
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
ENDLESS = 2**62  # version 1 writes a number near this where there is no limit


def memory_limit() -> int | None:
    """The lowest limit on this process's memory, in bytes; None if there is none."""
    limits = [int(text) for text in _read("memory", ("memory.max", "memory.limit_in_bytes")) if text.isdigit()]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min((limit for limit in limits if limit < ENDLESS), default=None)


def cpu_quota() -> float | None:
    """How many cores' time this process gets; None if there is no limit."""
    quotas = []
    for text in _read("cpu", ("cpu.max",)):
        most, _, period = text.partition(" ")
        quotas += [int(most) / int(period)] if most.isdigit() else []
    for most, period in zip(_read("cpu", ("cpu.cfs_quota_us",)), _read("cpu", ("cpu.cfs_period_us",)), strict=False):
        quotas += [int(most) / int(period)] if int(most) > 0 else []
    return min(quotas, default=None)


def _read(controller: str, files: tuple[str, ...]) -> Iterator[str]:
    """The content of ``files`` in the cgroup of this process and in those above it, of either version."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # macOS
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        top = CGROUPS / controllers if controllers else CGROUPS
        folder = top / path.lstrip("/")
        for place in (folder, *folder.parents):
            if top not in (place, *place.parents):
                break
            for file in files:
                try:
                    yield (place / file).read_text().strip()
                except OSError:
                    continue
