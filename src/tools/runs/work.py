"""What ``vitune seeds`` does: runs one after another, and the table of their results."""

import logging
import statistics
import sys
from dataclasses import dataclass, field

from fvcore.common.config import CfgNode

from ...configs.facts import methods_label
from ...engine.results import RunFolder, run_folder
from ...engine.run import run
from ...engine.shared import Shared
from ...utils.text import aligned

logger = logging.getLogger(__name__)


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


def perform(cfgs: list[CfgNode]) -> int:
    """Do the runs of one method and print their table; the exit status."""
    methods = methods_label(cfgs[0].MODEL.TRANSFER_TYPE, cfgs[0].FREQFIT, " + ")
    return report(run_all([(methods, cfg) for cfg in cfgs]))
