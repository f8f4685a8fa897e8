"""What a part of ``vitune bench gpu`` finds, and what it may use for that."""

import argparse
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK, FAILED, SHORT, NOTE = "ok", "FAILED", "short of the aim", ""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: that was done or measured.
        text: the result in words.
        mark: OK, FAILED (something is wrong), SHORT (slower than it should be) or NOTE.
        values: the figures, for the JSON file.
    """

    what: str
    text: str
    mark: str = NOTE
    values: dict[str, Any] = field(default_factory=dict)


def checked(what: str, text: str, right: bool, **values: Any) -> Finding:
    """A finding that is right or wrong."""
    return Finding(what, text, OK if right else FAILED, values)


def aimed(what: str, text: str, reached: bool, **values: Any) -> Finding:
    """A figure with an aim, which ``text`` names."""
    return Finding(what, text, OK if reached else SHORT, values)


def failure(what: str, error: Exception) -> Finding:
    """What went wrong; Python's traceback goes to the log."""
    traceback.print_exception(error)
    return Finding(what, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}", FAILED)


def apart(what: str, found: Iterator[Finding]) -> Iterator[Finding]:
    """These findings, the last of them a failure where they end with an error: others can still be made."""
    try:
        yield from found
    except Exception as error:  # whatever it is, it is found
        yield failure(what, error)


class LeftOut(Exception):
    """A part cannot be done here; the message says why."""


@dataclass(frozen=True)
class Room:
    """Where a part works.

    Attributes:
        device: "cuda:0", "cpu".
        tiny: small networks and few images, to try the program itself.
        backbone: for what is timed; ``batch`` images at a time.
        folder: for files, its own.
        until: when its time is over, as ``time.monotonic`` counts.
    """

    device: str
    tiny: bool
    backbone: str
    batch: int
    folder: Path
    until: float

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def options(self, rounds: int = 3, **more: Any) -> argparse.Namespace:
        """As the other benchmarks' command lines give them."""
        size = ["DATA.CROPSIZE", "32"] if self.tiny else []
        return argparse.Namespace(
            backbone="vit_micro_glyphs" if self.tiny else self.backbone,
            batch=self.batch,
            device=self.device,
            rounds=1 if self.tiny else rounds,
            threads=0,
            opts=size,
            **more,
        )
