"""The runs of a sweep: one cell per combination of the table's axes, its tuning runs, and the runs to test."""

import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ...configs import checks, facts
from ...configs.config import ConfigError, Setting, flatten, load_settings
from ...data.tasks import find_task
from ...engine.results import RunFolder, run_folder
from ...solver.lr_scheduler import counts_steps, num_epochs
from .points import points
from .spec import Choice, Seed, Sweep, label

logger = logging.getLogger(__name__)

MANY = 20  # problems that are listed


@dataclass(eq=False)
class Run:
    """One run of a sweep and its state.

    Attributes:
        settings: its complete config.
        stage: "tune" or "final"; ``label`` distinguishes it within its cell: the tuned values, or the seed.
        tuned: tuned key or own axis -> value or label; ``choice``: the corresponding settings.
        alike: equal for runs with the same images and backbone.
        rungs: epochs after which asha compares its validation accuracy.
        state: "waiting", "running", "done", "stopped" (by asha), "diverged" or "failed", with a ``reason``.
        lost: how often its process died.
        val, test: top-1 as fractions; seconds: its duration.
    """

    settings: list[Setting]
    cell: "Cell"
    stage: str
    label: str
    tuned: dict[str, Any]
    choice: dict[str, Any]
    folder: RunFolder = field(default_factory=lambda: RunFolder(Path()))
    alike: tuple = ()
    rungs: list[int] = field(default_factory=list)
    state: str = "waiting"
    reason: str = ""
    lost: int = 0
    val: float | None = None
    test: float | None = None
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        return self.state in ("done", "stopped", "diverged", "failed")

    def __str__(self) -> str:
        return ", ".join(part for part in (str(self.cell), self.label) if part)


@dataclass(eq=False)
class Cell:
    """One combination of the table's axes.

    Attributes:
        over: axis -> value or label; ``row``: those of all axes except tasks, as text.
        selection: what was chosen, from which candidates; {} if there was nothing to choose, None: not yet.
        reason: why nothing was chosen.
    """

    over: dict[str, Any]
    row: str
    settings: dict[str, Any]
    task: str = ""
    tuning: list[Run] = field(default_factory=list)
    finals: list[Run] = field(default_factory=list)
    selection: dict | None = None
    reason: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.task, self.row) if part)


class Plan:
    """All cells of a sweep, in order.

    Raises:
        ConfigError: settings cannot run, or two runs are identical; many problems are listed at once.
    """

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self._problems: dict[str, None] = {}
        self._notes: set[str] = set()
        self.cells = [self._cell(choices) for choices in itertools.product(*sweep.over.values())]
        self._require_different()
        if self._problems:
            listed = [*self._problems][:MANY]
            more = [f"... and {len(self._problems) - MANY} more"] if len(self._problems) > MANY else []
            raise ConfigError("the sweep has problems:\n" + "\n".join(f"  - {p}" for p in [*listed, *more]))
        self.root = Path(load_settings(self.cells[0].finals[0].settings, [], quiet=True).OUTPUT_DIR)

    @property
    def runs(self) -> list[Run]:
        return [run for cell in self.cells for run in (*cell.tuning, *cell.finals)]

    def finals(self, cell: Cell, tuned: dict, choice: dict) -> list[Run]:
        """The runs of ``cell`` to test, with the chosen settings."""
        return [self._run(cell, "final", tuned, choice, seed) for seed in self.sweep.seeds]

    def _cell(self, choices: tuple[Choice, ...]) -> Cell:
        over = dict(zip(self.sweep.over, (choice.label for choice in choices), strict=True))
        settings = {key: value for choice in choices for key, value in choice.settings.items()}
        settings |= self.sweep.cells.get(tuple(label(choice) for choice in choices), {})
        axes = self.sweep.tune | {key: axis for choice in choices for key, axis in choice.tune.items()}
        cell = Cell(over, self._row(choices), settings)
        candidates = points(axes, self.sweep)
        if len(candidates) > 1:
            cell.tuning = [self._run(cell, "tune", tuned, choice) for tuned, choice in candidates]
        # Until one is chosen, the first point stands for all, so that problems are found before anything runs.
        cell.finals = self.finals(cell, *candidates[0])
        return cell

    def _row(self, choices: tuple[Choice, ...]) -> str:
        parts = []
        for name, choice in zip(self.sweep.over, choices, strict=True):
            if name in self.sweep.task_axes:
                continue
            says_itself = list(choice.settings) != [name] or name == "MODEL.TRANSFER_TYPE"
            parts.append(str(choice.label) if says_itself else f"{name.split('.')[-1]} {_value_text(choice.label)}")
        return ", ".join(parts)

    def _run(self, cell: Cell, stage: str, tuned: dict, choice: dict, seed: Seed | None = None) -> Run:
        sweep = self.sweep
        layers = [("SWEEP.OVER", cell.settings), ("SWEEP.TUNE", choice)]
        layers.append(("SWEEP.TUNING", sweep.tuning) if stage == "tune" else ("SWEEP.FINAL", sweep.final))
        layers += [("SWEEP.SEEDS", seed.settings)] if seed else []
        settings = [(key, value, where) for where, values in layers for key, value in values.items()]
        label = (
            f"seed {seed.label}"
            if seed
            else ", ".join(f"{k.split('.')[-1]} {_value_text(v)}" for k, v in tuned.items())
        )
        run = Run([*sweep.settings, *settings], cell, stage, label, tuned, choice)
        if cfg := self._cfg(run.settings):
            run.folder = run_folder(cfg)
            run.alike = (cfg.DATA.NAME, cfg.DATA.FEATURE)
            flat = flatten(cfg)
            run.tuned = {name: flat.get(name, value) for name, value in tuned.items()}
            cell.task = find_task(cfg.DATA.NAME).name
            if stage == "tune":
                run.rungs = self._rungs(cfg)
                self._check_tuning(cfg, run.rungs)
        return run

    def _cfg(self, settings: list[Setting]) -> CfgNode | None:
        """The config of a run; None if it has problems, which are recorded."""
        try:
            cfg = load_settings(settings, [], quiet=bool(self._notes))
        except ConfigError as error:
            self._problems |= dict.fromkeys(line.removeprefix("  - ") for line in str(error).splitlines()[1:])
            return None
        for note in checks.warnings(cfg):
            if note not in self._notes and self._notes:
                logger.warning("note: %s", note)
            self._notes.add(note)
        self._notes.add("")  # the first config logs its own notes
        return cfg

    def _rungs(self, cfg: CfgNode) -> list[int]:
        if self.sweep.search != "asha":
            return []
        if counts_steps(cfg.SOLVER):
            self._problem(
                "asha stops runs after epochs: set SOLVER.TOTAL_EPOCH instead of SOLVER.MAX_STEPS and MIN_STEPS"
            )
            return []
        epochs = num_epochs(cfg.SOLVER)
        rung, rungs = self.sweep.min_epochs, []
        while rung < epochs:
            rungs.append(rung)
            rung *= self.sweep.factor
        return rungs

    def _check_tuning(self, cfg: CfgNode, rungs: list[int]) -> None:
        if facts.train_split(cfg) == "trainval":
            self._problem("tuning runs would train on trainval: SWEEP.TUNING needs DATA.TRAIN_SPLIT train")
        if not cfg.DATA.NO_TEST:
            self._problem("tuning runs would read the test set: SWEEP.TUNING needs DATA.NO_TEST True")
        every = cfg.SOLVER.EVAL_EVERY
        if any(not every or rung % every for rung in rungs):
            listed = ", ".join(map(str, rungs))
            self._problem(f"asha needs the validation accuracy after epochs {listed}: set SOLVER.EVAL_EVERY 1")

    def _require_different(self) -> None:
        first: dict[Path, Run] = {}
        for run in () if self._problems else self.runs:
            other = first.setdefault(run.folder.path, run)
            if other is not run:
                self._problem(
                    f'"{run}" ({run.stage}) and "{other}" ({other.stage}) are identical (folder {run.folder.path}): '
                    "an axis has no effect on the computation, or two of its values are equivalent"
                )
                return

    def _problem(self, text: str) -> None:
        self._problems[text] = None


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if str(value) else "none"
