"""Measure how fast things are here, side by side and in turn: medians over rounds, and ratios.

    python -m src.tools.bench step --batch 8 --rounds 5
    python -m src.tools.bench step --help

Files: OUT/<what>.json with every round's figures, OUT/<what>.md (also printed) and OUT/<what>.png. Weights are random:
nothing is downloaded.
"""

import argparse
import sys
from pathlib import Path

import torch

from ...configs.config import ConfigError
from ...engine.results import environment
from ...engine.run import choose_device
from ...utils.io import write_json, write_text
from ...utils.logging import setup_logging
from ...utils.paths import given_path
from . import data, evaluation, freqfit, linear, step

BENCHMARKS = {"step": step, "data": data, "eval": evaluation, "freqfit": freqfit, "linear": linear}


def main(argv: list[str]) -> int:
    listed = "\n".join(f"  {name:8} {module.__doc__.splitlines()[0]}" for name, module in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.bench",
        description=f"{__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s {" + ",".join(BENCHMARKS) + "} [options]",
    )
    parser.add_argument("what", choices=list(BENCHMARKS), help="its own options: <what> --help")
    what = parser.parse_args(argv[:1]).what
    args = _parse(what, argv[1:])
    setup_logging()
    try:
        _main(what, args)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def _parse(what: str, argv: list[str]) -> argparse.Namespace:
    module = BENCHMARKS[what]
    parser = argparse.ArgumentParser(
        prog=f"python -m src.tools.bench {what}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_options(parser)
    parser.add_argument(
        "--out", type=given_path, default=Path("output/bench"), help="folder for the files (default: %(default)s)"
    )
    return parser.parse_intermixed_args(argv)


def _main(what: str, args: argparse.Namespace) -> None:
    report = BENCHMARKS[what].run(args)
    print(report.text)
    out = args.out
    files = [out / f"{what}{suffix}" for suffix in (".md", ".json", ".png")]
    write_text(files[0], report.text)
    device = choose_device(getattr(args, "device", "cpu"))  # reading images is the CPU's work
    write_json(files[1], {**report.values, "environment": environment(device)})
    report.draw(files[2])
    print("result: " + ", ".join(map(str, files)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
