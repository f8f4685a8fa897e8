"""The parts of the report, those that take no time first."""

from collections.abc import Iterator, Sequence

from ...configs import checks
from ...configs.config import load_cfg
from . import devices, machine, software, storage
from .section import Section


def examine(config_file: str, pairs: Sequence[str]) -> Iterator[Section]:
    """One section after the other, as each is ready.

    Raises:
        ConfigError: the settings have problems.
    """
    yield software.versions()
    yield software.optional()
    yield machine.processor()
    cfg = load_cfg(config_file, pairs, checks.nothing)
    yield storage.folders(cfg)
    yield (computing := devices.devices(cfg.DEVICE))
    if not computing.errors:
        yield storage.weights(cfg)
        yield storage.data(cfg)


def verdict(sections: Sequence[Section]) -> str:
    """The last line of the report."""
    errors, warnings = (sum(len(getattr(section, kind)) for section in sections) for kind in ("errors", "warnings"))
    noted = f"{warnings} warning{'s' * (warnings != 1)}" if warnings else ""
    if errors:
        return f"{errors} error{'s' * (errors != 1)}{f' and {noted}' if noted else ''}: a run cannot start"
    return f"a run can start{f'; {noted}' if noted else ''}"
