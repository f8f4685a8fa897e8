"""What ``vitune bench`` does: measure, print a table, write it with its figures and a picture."""

import argparse
from importlib import import_module
from pathlib import Path

from ...engine.device import choose_device
from ...engine.environment import environment
from ...utils.io import write_json, write_text
from .common import Report
from .options import BENCHMARKS


def perform(what: str, args: argparse.Namespace) -> int:
    """The exit status: 1 where something that was tried failed."""
    found = import_module(f".{BENCHMARKS[what].module}", __package__).run(args)
    device = choose_device(getattr(args, "device", "cpu"))  # reading images is the CPU's work
    where = environment(device)
    for report in [found] if isinstance(found, Report) else found:  # the last one has all; what is known is kept
        files = _write(what, args.out, report, where)
    print(report.text)
    print("result: " + ", ".join(map(str, files)))
    return int(report.failed)


def _write(what: str, folder: Path, report: Report, where: dict) -> list[Path]:
    text, values, picture = (folder / f"{what}{suffix}" for suffix in (".md", ".json", ".png"))
    write_text(text, report.text)
    write_json(values, {**report.values, "environment": where})
    if report.draw is None:
        return [text, values]
    report.draw(picture)
    return [text, values, picture]
