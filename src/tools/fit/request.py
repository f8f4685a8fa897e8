"""What is asked of a fit, and its folder, which belongs to one request and one set of images."""

import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...configs import checks
from ...configs.config import ConfigError, load_cfg
from ...utils.io import read_json, write_json

CONFIG = "folder"  # the shipped config that every run starts from
# Keys that a fit sets itself.
OWN = (
    "DATA.NAME",
    "DATA.DATAPATH",
    "DATA.TRAIN_LIST",
    "DATA.VAL_LIST",
    "DATA.TEST_LIST",
    "DATA.FEATURE",
    "DATA.CORRUPT",
)


@dataclass(frozen=True)
class Request:
    """A fit.

    Attributes:
        data: a folder or a CSV.
        minutes: of time; ``steps``: of training steps instead. One of them is given: the other is None, or 0.
        backbones: names of DATA.FEATURE; []: all whose weights are here.
        own: KEY VALUE pairs for every run.
    """

    data: Path
    minutes: float | None = None
    steps: int = 0
    seed: int = 42
    backbones: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raises ConfigError: what is wrong with it, before anything is read."""
        if self.minutes is not None and not (self.minutes > 0 and math.isfinite(self.minutes)):
            raise ConfigError(f"minutes is {self.minutes}; it must be a number above 0, such as 30")
        if self.steps < 0 or not 0 <= self.seed < 2**31:
            raise ConfigError("steps and seed must not be below 0, and seed must be below 2**31")
        if self.minutes is not None and self.steps:
            raise ConfigError(
                f"minutes {self.minutes:g} and steps {self.steps}: the budget is one of them; leave one out"
            )
        if self.minutes is None and not self.steps:
            raise ConfigError("there is no budget: give minutes, or steps")
        if chosen := [key for key in self.own[::2] if key in OWN]:
            raise ConfigError(f"{', '.join(chosen)}: fit chooses that, leave it out")
        load_cfg(CONFIG, self.own, checks.nothing)


def make_folder(folder: Path) -> None:
    """Raises ConfigError: it cannot be made, or nothing can be written in it."""
    why = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
    if why or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be written to{f' ({why})' if why else ''}: give another folder with --out")


def claim(folder: Path, request: Request, digest: str) -> None:
    """Make the folder this request's.

    Raises:
        ConfigError: it belongs to another one, or the images have changed.
    """
    asked = asdict(request) | {"data": str(request.data.expanduser().absolute()), "images": digest}
    file = folder / "request.json"
    if file.is_file():
        before = read_json(file)
        other = [name for name in asked if before.get(name) != asked[name]]
        if other:
            changes = ", ".join(
                "other images" if name == "images" else f"{name} {before.get(name)}, now {asked[name]}"
                for name in other
            )
            raise ConfigError(
                f"{folder} holds a fit with {changes}: give another folder with --out, or remove this one. "
                "Features are kept elsewhere and need not be computed again"
            )
        return
    write_json(file, asked)


class Clock:
    """Seconds of work on a fit, in all and of each part, over all its processes; kept in a file."""

    def __init__(self, file: Path):
        self.file = file
        kept = read_json(file) if file.is_file() else {}
        self.before: float = kept.get("seconds", 0.0)
        self.parts: dict[str, float] = kept.get("parts", {})
        self.start = time.monotonic()
        self.lapped = self.before

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def lap(self, part: str) -> None:
        """Count the time since the last lap as that of a part."""
        now = self.seconds()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.lapped
        self.lapped = now
        write_json(self.file, {"seconds": now, "parts": self.parts})


def default_folder(data: Path) -> Path:
    """``output/fit/<name of the data>``."""
    return Path("output") / "fit" / (data.expanduser().absolute().stem or "images")
