"""The state of a sweep: what is finished, what is next, what validation chose. The run folders are its only state."""

import itertools
from collections import deque

from ...configs.config import flatten, load_settings
from ...engine.results import RunFolder
from ...utils.io import WriteError, read_json, waiting_for, write_json
from .execute import Job
from .plan import Cell, Plan, Run

LR, DECAY = "SOLVER.BASE_LR", "SOLVER.WEIGHT_DECAY"
RULE = f"highest validation top-1 of the weights that a run ends with; ties: smaller {LR}, smaller {DECAY}, first"
NEAR = 200  # waiting runs that are searched for a similar one


class Ledger:
    """Reads finished runs from the folders, hands out the others, and chooses settings once a cell's tuning has ended.

    Args:
        command: the command that continues the sweep, for the report.
        without_failed: if tuning runs failed, choose among the others. Runs whose loss diverged are always excluded, as
            that is a property of their settings.
    """

    def __init__(self, plan: Plan, command: str, without_failed: bool = False):
        self.plan = plan
        self.command = command
        self.without_failed = without_failed
        self.file = plan.root / "sweeps" / f"{plan.sweep.name}.json"
        self.ready: deque[Run] = deque()
        for cell in plan.cells:
            for run in cell.tuning:
                self._read(run)
            self.ready.extend(run for run in cell.tuning if not run.over)
        for cell in reversed(plan.cells):
            self._choose(cell)

    # --- handing out runs

    def next(self, alike: tuple = ()) -> Run | None:
        """The next run to start, preferably one ``alike`` the last; None: nothing can start now."""
        if not self.ready:
            return None
        run = next((run for run in itertools.islice(self.ready, NEAR) if run.alike == alike), self.ready[0])
        self.ready.remove(run)
        run.state = "running"
        return run

    def again(self, run: Run, later: bool = False) -> None:
        """Take back an unfinished run; it becomes the next one, or the last if ``later``."""
        run.state = "waiting"
        (self.ready.append if later else self.ready.appendleft)(run)

    def ended(self, run: Run, failure: str = "") -> bool:
        """Record how a run ended; returns whether that decided its cell, by choice or by failure."""
        if failure:
            run.state = "failed"
            run.reason = failure
        else:
            run.state = "waiting"
            self._read(run)
            if not run.over:
                run.state = "failed"
                run.reason = f"it ended without a result, see {run.folder.log}"
        if run.stage == "final":
            if run.reason:
                self.write()
            return False
        decided = self._choose(run.cell)
        if decided:
            self.write()
        return decided

    # --- reading the folders

    def _read(self, run: Run) -> None:
        try:
            result = run.folder.read_result()
            if result:
                run.seconds = sum(result["cost"]["seconds"].values())
                run.val = result["val"] and result["val"]["top1"]
                run.test = result["test"] and result["test"]["top1"]
                run.state = "done"
            elif run.folder.stopped.is_file():
                self._read_stopped(run, read_json(run.folder.stopped))
        except (ValueError, KeyError, TypeError) as error:
            run.state = "failed"
            run.reason = str(error)

    @staticmethod
    def _read_stopped(run: Run, about: dict) -> None:
        if "diverged" in about:
            run.state = "diverged"
            run.reason = about["diverged"]
            run.seconds = about["seconds"]
        elif run.rungs:  # by asha; a grid completes the run
            run.state = "stopped"
            run.val = about["val"]
            run.seconds = about["seconds"]

    def _choose(self, cell: Cell) -> bool:
        """If all tuning runs of ``cell`` have ended, choose and queue the runs to test; returns whether it did."""
        if cell.selection is not None or cell.reason or not all(run.over for run in cell.tuning):
            return False
        candidates = [run for run in cell.tuning if run.state == "done" and run.val is not None]
        failed = [run for run in cell.tuning if run.state == "failed"]
        if cell.tuning and not candidates:
            cell.reason = "none of its tuning runs was finished"
        elif failed and not self.without_failed:
            cell.reason = (
                f"{len(failed)} of its {len(cell.tuning)} tuning runs failed: repeat the command once the cause is "
                "fixed, or choose among the others with --without-failed"
            )
        if cell.reason:
            return True
        cell.selection = {}
        if cell.tuning:
            best = min(candidates, key=_order)
            cell.selection = {
                "rule": RULE,
                "search": self.plan.sweep.search,
                "chosen": best.tuned,
                "val": best.val,
                "ties": sum(run.val == best.val for run in candidates),
                "candidates": [{"tuned": run.tuned, "val": run.val, "folder": self._name(run)} for run in candidates],
                "stopped": sum(run.state == "stopped" for run in cell.tuning),
                "failed": [
                    {"tuned": run.tuned, "reason": run.reason}
                    for run in cell.tuning
                    if run.state in ("diverged", "failed")
                ],
            }
            cell.finals = self.plan.finals(cell, best.tuned, best.choice)
        for run in cell.finals:
            self._read(run)
        self.ready.extendleft(reversed([run for run in cell.finals if not run.over]))
        return bool(cell.tuning)

    # --- writing

    def job(self, run: Run) -> Job:
        """The job of a run, for the process that does it."""
        rivals = [other.folder.path for other in run.cell.tuning] if run.rungs else []
        return Job(run.settings, run.folder.path, self.record(run), run.rungs, self.plan.sweep.factor, rivals)

    def record(self, run: Run) -> dict:
        """The content of a run's sweep.json: its role in this sweep."""
        final = run.stage == "final"
        return {
            "sweep": self.plan.sweep.name,
            "stage": run.stage,
            "protocol": self.plan.sweep.protocol,
            "row": run.cell.row,
            "over": run.cell.over,
            "task_axes": self.plan.sweep.task_axes,
            "seed": run.label.removeprefix("seed ") if final else None,
            "tuned": run.tuned,
            "selection": (run.cell.selection or None) if final else None,
            "published": self.plan.sweep.published or None,
        }

    def write(self) -> None:
        """Write cells and failures, merged with those of other commands of the same sweep."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with waiting_for(self.file.with_suffix(".lock"), f"waiting for {self.file}"):
            before = self._written()
            cells = {str(cell["over"]): cell for cell in before["cells"]}
            for cell in self.plan.cells:
                earlier = cells.get(str(cell.over), {}).get("finals", {})
                if cell.selection is not None:
                    self._supersede(earlier, cell)
                cells[str(cell.over)] = self._about(cell, earlier)
            mine = {self._name(run) for run in self.plan.runs}
            failed = [entry for entry in before["failed"] if entry["folder"] not in mine]
            failed += [
                {"folder": self._name(run), "run": str(run), "reason": run.reason, "command": self.command}
                for run in self.plan.runs
                if run.reason
            ]
            about = {"sweep": self.plan.sweep.name, "cells": list(cells.values())}
            write_json(self.file, about | {"published": self.plan.sweep.published or None, "failed": failed})

    def _written(self) -> dict:
        if not self.file.is_file():
            return {"cells": [], "failed": []}
        try:
            before = read_json(self.file)
            return {"cells": list(before["cells"]), "failed": list(before["failed"])}
        except (ValueError, KeyError, TypeError) as error:
            raise WriteError(f"{self.file} is broken: remove it; the runs' folders hold everything") from error

    def _about(self, cell: Cell, earlier: dict[str, str]) -> dict:
        finals = {
            run.label.removeprefix("seed "): str(run.folder.path.relative_to(self.plan.root)) for run in cell.finals
        }
        return {
            "over": cell.over,
            "row": cell.row,
            "task": cell.task,
            "seeds": list(finals),
            "tuning_runs": len(cell.tuning),
            "finals": finals if cell.selection is not None else earlier,
            "reason": cell.reason,
            "command": self.command,
        }

    def _name(self, run: Run) -> str:
        return str(run.folder.path.relative_to(self.plan.root))

    def _supersede(self, before: dict[str, str], cell: Cell) -> None:
        """Mark runs tested with an earlier choice: the grid has grown since, or a failed run was repeated."""
        now = {run.folder.path for run in cell.finals}
        for name in before.values():
            folder = RunFolder(self.plan.root / name)
            if folder.path not in now and folder.sweep.is_file():
                write_json(folder.sweep, read_json(folder.sweep) | {"stage": "superseded"})


def _order(run: Run) -> tuple:
    cfg = flatten(load_settings(run.settings, [], quiet=True))
    return -run.val, cfg[LR], cfg[DECAY]
