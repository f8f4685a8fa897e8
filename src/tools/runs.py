"""Several runs one after another, and the table of what came out: mean and spread over seeds.

    python -m src.tools.runs --config-file configs/digits.yaml --seeds "42 44 82" MODEL.TRANSFER_TYPE lora

Finished runs are not repeated, interrupted ones go on; a run that fails is reported and does not stop the others.
"""

import argparse
import logging
import statistics
import sys
from dataclasses import dataclass, field

from fvcore.common.config import CfgNode

from ..configs.config import ConfigError, load_cfg
from ..engine.results import RunFolder, run_folder
from ..engine.run import run
from ..engine.shared import Shared
from ..utils.logging import setup_logging
from ..utils.signals import stoppable
from ..utils.text import aligned

logger = logging.getLogger(__name__)

SEEDS = "42 44 82 100 800"  # VPT's and FreqFiT's


@dataclass
class Row:
    """One row of the table: the same settings with several seeds."""

    label: str
    results: list[dict] = field(default_factory=list)
    folders: list[RunFolder] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def accuracies(self) -> list[float]:
        """Top-1 as fractions, one per seed: on the test set, or on val if a run does not use the test set."""
        return [(result["test"] or result["val"])["top1"] for result in self.results]

    @property
    def trained(self) -> int:
        """Trained parameters without the head."""
        return self.results[0]["parameters"]["trained"] - self.results[0]["parameters"]["head"]

    @property
    def seconds(self) -> float:
        """Mean training time per run."""
        return statistics.mean(result["cost"]["seconds"]["train"] for result in self.results)


def run_all(wanted: list[tuple[str, CfgNode]]) -> list[Row]:
    """Do the runs; one row per label, in order of appearance."""
    rows: dict[str, Row] = {}
    shared = Shared()
    for number, (label, cfg) in enumerate(wanted, start=1):
        row = rows.setdefault(label, Row(label))
        logger.info("\n[%d/%d] %s, seed %d", number, len(wanted), label, cfg.SEED)
        folder = run_folder(cfg)
        try:
            row.results.append(run(cfg, folder, resume=True, shared=shared))
            row.folders.append(folder)
        except Exception as error:  # any error is reported at the end and must not stop the other runs
            logger.error("error: %s", error, exc_info=not isinstance(error, (ValueError, OSError, FloatingPointError)))
            row.failures.append(f"seed {cfg.SEED}: {error}")
    return list(rows.values())


def table(rows: list[Row]) -> str:
    """The rows as text: accuracy in percent, mean and sample standard deviation over seeds, lowest and highest."""
    head = ("method", "top-1, %", "lowest-highest", "seeds", "trained + head", "s a run")
    lines = [head]
    for row in rows:
        if not row.results:
            lines.append((row.label, "failed", "", "0", "", ""))
            continue
        percent = [100 * a for a in row.accuracies]
        spread = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
        lines.append(
            (
                row.label,
                f"{statistics.mean(percent):.2f}{spread}",
                f"{min(percent):.2f}-{max(percent):.2f}",
                str(len(percent)),
                f"{row.trained:,} + {row.results[0]['parameters']['head']:,}",
                f"{row.seconds:.1f}",
            )
        )
    return aligned(lines)


def report(rows: list[Row]) -> int:
    """Print the table and the failures; returns the exit status."""
    print("\n" + table(rows))
    failures = [f"{row.label}, {failure}" for row in rows for failure in row.failures]
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def main(argv: list[str]) -> int:
    return stoppable(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="YAML file with settings")
    parser.add_argument("--seeds", default="", help=f"seeds, separated by spaces (default: SEED, or {SEEDS})")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that override the file's")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    keys = args.opts[::2]
    if args.seeds.strip() and "SEED" in keys:
        parser.error("both --seeds (SEEDS) and SEED are given: choose one")
    seeds = args.seeds.split() or ([args.opts[2 * keys.index("SEED") + 1]] if "SEED" in keys else SEEDS.split())
    try:
        cfgs = [load_cfg(args.config_file, [*args.opts, "SEED", seed]) for seed in seeds]
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    methods = cfgs[0].MODEL.TRANSFER_TYPE + (f" + {cfgs[0].FREQFIT}" if cfgs[0].FREQFIT else "")
    return report(run_all([(methods, cfg) for cfg in cfgs]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
