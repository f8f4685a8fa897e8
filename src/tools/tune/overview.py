"""A sweep's progress: a bar of finished and remaining runs, and a line for every run that ends."""

import logging

from ...utils.progress import tqdm
from .ledger import Ledger
from .plan import Cell, Run

logger = logging.getLogger(__name__)


class Overview:
    """``with Overview(ledger, places) as overview``: one bar over all runs, including earlier ones.

    Args:
        places: how many runs are done in parallel.
    """

    def __init__(self, ledger: Ledger, places: int):
        self.ledger = ledger
        self.places = places
        self.before = sum(run.over for run in ledger.plan.runs)

    def __enter__(self) -> "Overview":
        total = len(self.ledger.plan.runs)
        shape = "{desc} {n_fmt}/{total_fmt} |{bar}|{postfix}"
        self.bar = tqdm(
            desc=self.ledger.plan.sweep.name, total=total, initial=self.before, bar_format=shape, dynamic_ncols=True
        )
        self._refresh()
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()

    def started(self, run: Run) -> None:
        self._refresh()

    def again(self, run: Run, why: str) -> None:
        logger.info("again    %s: %s", run, why)
        self._refresh()

    def ended(self, run: Run, decided: bool) -> None:
        """Log the run, and what was chosen if this ``decided`` its cell."""
        outcome = run.reason
        if run.test is not None:
            outcome = f"test {100 * run.test:.2f} %"
        elif run.val is not None:
            outcome = f"val {100 * run.val:.2f} %"
        logger.info("%-8s %s: %s, %.0f s", run.state, run, outcome, run.seconds)
        if decided:
            self._decided(run.cell)
        self.bar.update()
        self._refresh()

    def _decided(self, cell: Cell) -> None:
        if cell.reason:
            logger.info("nothing  %s: %s", cell, cell.reason)
            return
        chosen = cell.selection
        values = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in chosen["chosen"].items())
        ties = f", {chosen['ties']} tie" if chosen["ties"] > 1 else ""
        best = f"val {100 * chosen['val']:.2f} %, best of {len(cell.tuning)}{ties}"
        logger.info("chosen   %s: %s (%s)", cell, values, best)

    def _refresh(self) -> None:
        runs = self.ledger.plan.runs
        count = {state: sum(run.state == state for run in runs) for state in ("done", "running", "failed", "diverged")}
        parts = [f"{number} {state}" for state, number in count.items() if number or state == "done"]
        tried = [run for run in runs if run.val is not None and run.stage == "tune"]
        if tried:
            best = max(tried, key=lambda run: run.val)
            parts.append(f"best val {100 * best.val:.1f} % ({best})")
        parts.append(f"{tqdm.format_interval(self.left())} left" if self.left() else "")
        self.bar.set_postfix_str(", ".join(part for part in parts if part))

    def left(self) -> float:
        """Estimated seconds left, from the runs so far."""
        return seconds_left(self.ledger.plan.runs, self.places)


def seconds_left(runs: list[Run], places: int) -> float:
    """Estimated seconds for unfinished runs: the mean of finished ones of the same row or stage, else the prior
    estimate; 0 if unknown."""
    took: dict[tuple, list[float]] = {}
    for run in runs:
        if run.state in ("done", "stopped"):
            for key in ((run.cell.row, run.stage), (run.stage,), ()):
                took.setdefault(key, []).append(run.seconds)
    total = 0.0
    for run in runs:
        if not run.over:
            group = next((k for k in ((run.cell.row, run.stage), (run.stage,), ()) if k in took), None)
            if group is None and not run.seconds:
                return 0.0
            total += sum(took[group]) / len(took[group]) if group is not None else run.seconds
    return total / places
