"""A run's folder: where it is, and what is in it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import simplejson
from fvcore.common.config import CfgNode

from ..configs.config import changed, keys_of
from ..configs.facts import methods_label
from ..configs.keys import MACHINE
from ..models.vit_backbones.hugging_face.place import label
from ..utils.io import read_json

# Keys that may differ, beside those of the machine, when a finished run is tested again: files move.
MOVABLE = ("DATA.DATAPATH", "DATA.CORRUPT", "DATA.EVAL_BATCH_SIZE", "MODEL.WEIGHT_PATH")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def wiring(self) -> Path:
        return self.path / "wiring.txt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def tuned(self) -> Path:
        return self.path / "tuned.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def data(self) -> Path:
        """Which images the interrupted run has seen."""
        return self.path / "data.json"

    @property
    def allocation(self) -> Path:
        return self.path / "allocation.safetensors"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def trackers(self) -> Path:
        """What W&B and MLflow call the run, and what they were told."""
        return self.path / "trackers.json"

    @property
    def sweep(self) -> Path:
        """Of which sweep the run is part, and what it is there."""
        return self.path / "sweep.json"

    @property
    def stopped(self) -> Path:
        """Why and after which epoch a sweep ended the run before its end."""
        return self.path / "stopped.json"

    def read_result(self) -> dict | None:
        """The finished run's result, None for an unfinished one.

        Raises:
            ValueError: the file is broken.
        """
        if not self.result.is_file():
            return None
        again = "remove it, and the run is done again"
        try:
            result = read_json(self.result)
        except ValueError as error:
            raise ValueError(f"{error}; {again}") from error
        if not isinstance(result, dict) or not {"test", "val", "config", "seed"} <= result.keys():
            raise ValueError(f"{self.result} is no result of a run: {again}")
        try:
            _require_result(result)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{self.result} is broken, or of another version ({error!r}): {again}") from error
        return result


def _require_result(result: dict) -> None:
    """Raises one of many errors unless a result has what its readers ask for, of the right type."""
    for name in ("test", "val"):
        if (found := result[name]) is not None and not (0 <= found["top1"] <= 1 and found["images"] >= 0):
            raise ValueError(f"{name} {found}")
    numbers = [result["parameters"][name] for name in ("trained", "head")] + [*result["cost"]["seconds"].values()]
    if not all(isinstance(number, (int, float)) for number in numbers) or not isinstance(result["config"], dict):
        raise TypeError("a part is of another type")


def may_move() -> tuple[str, ...]:
    """Keys that may differ when a finished run is tested again."""
    return (*keys_of(MACHINE), *MOVABLE)


def run_folder(cfg: CfgNode) -> RunFolder:
    """The folder that belongs to a config: readable names, and a hash that tells apart what the names do not."""
    data = cfg.DATA.NAME
    if cfg.DATA.DATAPATH and data == "folder":
        data = f"folder-{Path(cfg.DATA.DATAPATH).absolute().name}"
    methods = methods_label(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    machine = keys_of(MACHINE)
    settings = {k: v for k, v in changed(cfg).items() if k not in machine}
    digest = hashlib.sha256(simplejson.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    last = f"lr{cfg.SOLVER.BASE_LR:g}_wd{cfg.SOLVER.WEIGHT_DECAY:g}_seed{cfg.SEED}_{digest}"
    parts = (data, label(cfg.DATA.FEATURE), methods, last)
    return RunFolder(Path(cfg.OUTPUT_DIR or "output").joinpath(*(_file_name(part) for part in parts)))


def _file_name(text: str) -> str:
    """``vtab-cifar(num_classes=100)`` -> ``vtab-cifar-num_classes=100``: no quotes, brackets, colons or slashes."""
    return re.sub(r"[^\w.+=-]+", "-", text).strip("-") or "unnamed"
