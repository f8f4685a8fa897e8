"""What ``vitune bench`` does: measure, print a table, write it with its figures and a picture."""

import argparse
from importlib import import_module

from ...engine.device import choose_device
from ...engine.environment import environment
from ...utils.io import write_json, write_text
from .options import BENCHMARKS


def perform(what: str, args: argparse.Namespace) -> None:
    report = import_module(f".{BENCHMARKS[what].module}", __package__).run(args)
    print(report.text)
    files = [args.out / f"{what}{suffix}" for suffix in (".md", ".json", ".png")]
    write_text(files[0], report.text)
    device = choose_device(getattr(args, "device", "cpu"))  # reading images is the CPU's work
    write_json(files[1], {**report.values, "environment": environment(device)})
    report.draw(files[2])
    print("result: " + ", ".join(map(str, files)))
