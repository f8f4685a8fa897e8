"""A finished run, opened for further use."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...configs.config import flatten
from ...configs.facts import methods_label
from ...data.loader import Loader
from ...data.shifts import ShiftedLoader
from ...engine.backbones import Backbones
from ...engine.checkpoint import Tuned, hash_of, load_tuned
from ...engine.device import choose_device
from ...engine.evaluator import best_classes, require_numbers
from ...engine.fit_folder import run_of
from ...engine.outputs import outputs
from ...engine.precision import set_backends
from ...engine.results import RunFolder, may_move
from ...models.pooling import set_pool
from ...models.vit_models import TunedViT


@dataclass(frozen=True)
class FinishedRun:
    """A run read back, its model on its device.

    Attributes:
        label: distinguishes it from the other runs of a command.
        backbones: where its pre-trained network comes from, which it shares with them.
        weights: a hash of all values of the model.
        result: result.json; None if there is only a tuned.safetensors.
    """

    folder: RunFolder
    tuned: Tuned
    device: torch.device
    label: str
    weights: str
    result: dict | None
    backbones: Backbones

    @property
    def cfg(self) -> CfgNode:
        return self.tuned.cfg

    @property
    def model(self) -> TunedViT:
        return self.tuned.model

    @property
    def class_names(self) -> list[str]:
        return self.tuned.class_names

    def logits(self, loader: Loader | ShiftedLoader, name: str) -> Tensor:
        """Float32 logits (N, classes) of the split ``name``; cached."""
        values = outputs(self.cfg, f"logits of {name}", self.model, len(self.class_names), loader, self.facts)
        return require_numbers(values, name)

    def best_classes(
        self,
        loader: Loader | ShiftedLoader,
        name: str,
        classes: Tensor | None = None,
        facts: dict | None = None,
        network: nn.Module | None = None,
    ) -> Tensor:
        """(N, 5) labels, see ``evaluator.best_classes``; cached, in much less space than logits.

        Args:
            facts: changes to the model beyond what is in its folder.
            network: used in place of the model; made from it as ``facts`` say.
        """
        network = network or self.model
        count = min(5, len(self.class_names) if classes is None else len(classes))
        where = None if classes is None else classes.to(self.device)
        facts = self.facts | {"classes": repr(None if classes is None else classes.tolist())} | (facts or {})

        def best(images: Tensor) -> Tensor:
            return best_classes(require_numbers(network(images), name), where)

        return outputs(self.cfg, f"answers to {name}", best, count, loader, facts).long()

    def pre_trained(self) -> nn.Module:
        """The pre-trained timm network that the run tuned, on the run's device."""
        vit = self.backbones.on_device(self.cfg)
        set_pool(vit, self.cfg.MODEL.POOL, norm_of_all=True)
        return vit

    @property
    def facts(self) -> dict:
        """Everything that determines the model's outputs, for ``outputs``."""
        return {"weights": self.weights, "config": self.cfg.MODEL.dump() + self.cfg.FREQFIT}


def open_run(path: str | Path, changes: Sequence[str] = (), backbones: Backbones | None = None) -> FinishedRun:
    """Read a run's folder, a fit's (its final model), or a tuned.safetensors.

    Args:
        changes: KEY VALUE pairs that override the run's, such as DEVICE or DATA.DATAPATH.
        backbones: of other runs that are open at the same time.

    Raises:
        FileNotFoundError, ValueError: it is not a finished run, or does not fit its backbone's weights.
    """
    backbones = backbones or Backbones()
    path = run_of(Path(path))
    tuned = load_tuned(path, changes, backbone=backbones.on_device)
    folder = RunFolder(path if path.is_dir() else path.parent)
    device = choose_device(tuned.cfg.DEVICE)
    set_backends(tuned.cfg, device)
    tuned.model.to(device)
    weights = hash_of(tuned.model.state_dict())
    return FinishedRun(folder, tuned, device, methods_of(tuned.cfg), weights, folder.read_result(), backbones)


def open_runs(paths: Sequence[str | Path], changes: Sequence[str] = ()) -> list[FinishedRun]:
    """Read several runs, with distinct labels.

    Raises:
        ValueError: a folder is given twice, or as in ``open_run``.
    """
    if len({run_of(Path(path)).resolve() for path in paths}) < len(paths):
        raise ValueError("the same run is named twice")
    backbones = Backbones()
    runs = [open_run(path, changes, backbones) for path in paths]
    return [replace(run, label=label) for run, label in zip(runs, labels(runs), strict=True)]


def labels(runs: Sequence[FinishedRun]) -> list[str]:
    """Labels: methods, and as needed to distinguish runs also backbone, seed and folder name."""
    parts = [
        [methods_of(run.cfg) for run in runs],
        [run.cfg.DATA.FEATURE for run in runs],
        [f"seed {run.cfg.SEED}" for run in runs],
        [run.folder.path.name for run in runs],
    ]
    used = [parts[0]]
    for part in parts[1:]:
        if len(set(zip(*used, strict=True))) == len(runs):
            break
        if len(set(part)) > 1:
            used.append(part)
    names = [", ".join(words) for words in zip(*used, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def groups(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs grouped if they differ only in SEED, under a label without the seed."""
    grouped: dict[str, list[FinishedRun]] = {}
    aside = ("SEED", *may_move())
    for run in runs:
        settings = flatten(run.cfg)
        grouped.setdefault(repr({k: v for k, v in settings.items() if k not in aside}), []).append(run)
    names = labels([replace(some[0], label="") for some in grouped.values()])
    return dict(zip(names, grouped.values(), strict=True))


def methods_of(cfg: CfgNode) -> str:
    return methods_label(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
