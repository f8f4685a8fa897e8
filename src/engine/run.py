"""One run from a config: data, model, training, one look at the test set, and the folder that holds it all."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ..configs.config import changed, flatten
from ..data.loader import Loader
from ..data.opened import Data, open_data
from ..data.tasks import find_task
from ..models.memo import Memo
from ..models.method import wiring
from ..models.vit_backbones.zoo import find_weights
from ..models.vit_models import TunedViT
from ..solver.optimizer import describe_groups, groups_table
from ..utils import distributed
from ..utils.io import exclusive, remove_partial, write_json, write_text
from ..utils.logging import LogFile
from ..utils.seed import seed_everything
from ..utils.signals import StopSignals
from .budget import Plan, plan
from .checkpoint import load_tuned, save_tuned
from .cost import activations_per_image, cost_card, describe, flops
from .device import choose_device
from .environment import environment
from .evaluator import best_test_epoch, evaluate
from .held import held
from .precision import autocast, resolve_amp, set_backends
from .results import RunFolder, may_move
from .same_run import differences, different_keys, require_free, require_same, same_data
from .sensitivity import about_allocation, needs_allocation, with_allocation
from .shared import Shared
from .step import compiled, require_compiler
from .trackers import Trackers, require_trackers, tracking
from .trainer import Watch, train
from .what_to_keep import set_recompute
from .zero_shot import check_zero_shot, zero_shot_head

logger = logging.getLogger(__name__)

SOME_CLASSES = 100  # where only the data tell how many there are: a head is small


def run(
    cfg: CfgNode,
    folder: RunFolder,
    resume: bool = False,
    shared: Shared | None = None,
    watch: Watch | None = None,
    save_seconds: float = 0.0,
) -> dict:
    """Train and test as ``cfg`` says, and write everything into ``folder``; the result, as in result.json.

    Under ``torchrun`` all processes call this together; the first one writes.

    Args:
        resume: go on with an interrupted run; a finished one just gives its result.
        shared: with other runs of this process.
        watch: called after every epoch with the rows of metrics.jsonl so far; may raise StoppedEarly.
        save_seconds: last.ckpt and metrics.jsonl are written after an epoch only if the last time was so long ago.

    Raises:
        FileExistsError: the folder holds a run, and ``resume`` is not set or its config is another.
        FileNotFoundError, ValueError: missing weights, data that cannot be used, methods that do not fit.
        WriteError: the disk is full or gone; what was written before is intact.
        Interrupted: SIGTERM, SIGINT or SIGUSR1; the same with ``resume`` goes on where it stopped.
        StoppedEarly: ``watch`` raised it.
    """
    if resume and (result := folder.read_result()):
        require_same(cfg, folder)
        logger.info("%s is finished already", folder.path)
        logger.info(summary(result))
        return result
    shared = shared or Shared()
    device = _check(cfg, folder, resume, shared)
    data = _open(cfg, shared)
    with StopSignals() as stop, distributed.together(device):
        start = _start(cfg, folder, resume, data, device, shared)
        with exclusive(folder.log) if distributed.is_first() else nullcontext():
            return Steps(cfg, folder, data, start, shared).complete(resume, stop, watch, save_seconds)


def _check(cfg: CfgNode, folder: RunFolder, resume: bool, shared: Shared) -> torch.device:
    """Find what the run cannot do without, before data are read; where it computes."""
    require_free(cfg, folder, resume)
    device = choose_device(cfg.DEVICE)
    set_backends(cfg, device)
    require_compiler(cfg, device)
    require_trackers(cfg)
    find_weights(cfg.DATA.FEATURE, cfg.MODEL.MODEL_ROOT, cfg.MODEL.WEIGHT_PATH)
    shared.require_methods_fit(cfg)
    if cfg.MODEL.HEAD_INIT == "zero_shot":
        check_zero_shot(cfg)
    shared.read_backbone(cfg)
    if not needs_allocation(cfg):  # SPT decides by the data what it trains
        shared.plan(cfg, find_task(cfg.DATA.NAME).num_classes or SOME_CLASSES, device)
    return device


def _open(cfg: CfgNode, shared: Shared) -> Data:
    data = shared.data(cfg)
    if cfg.SOLVER.BEST_TEST_EPOCH and "test" not in data.splits:
        raise ValueError(f"SOLVER.BEST_TEST_EPOCH tests every epoch, but {data.task.name} has no test set here")
    return data


@dataclass(frozen=True)
class Start:
    """What a run starts with.

    Attributes:
        head: of the zero-shot model, which the classifier starts from; None where it starts otherwise.
        allocation: what an SPT method spends its budget on, for the record.
        plan: how it stays within SOLVER.MEMORY_GB; None without a budget.
    """

    model: TunedViT
    memo: Memo
    head: dict[str, Tensor] | None
    allocation: dict | None
    plan: Plan | None


def _start(cfg: CfgNode, folder: RunFolder, resume: bool, data: Data, device: torch.device, shared: Shared) -> Start:
    """What depends on the data and comes before the model, then the model, on its device."""
    with distributed.first_before_others():
        whole = with_allocation(cfg, data, device, folder, resume or not distributed.is_first())
        zero_shot = cfg.MODEL.HEAD_INIT == "zero_shot"
        head = zero_shot_head(cfg, data.class_names, device) if zero_shot else None
    planned = shared.plan(whole, len(data.class_names), device)
    model, memo = shared.model(planned.applied(whole) if planned else whole, len(data.class_names), device, head)
    seed_everything(cfg.SEED + distributed.rank())
    return Start(model, memo, head, about_allocation(whole), planned)


class Steps:
    """The steps of a run, in a folder that is this process's own.

    Attributes:
        planned: the config with what a plan for its memory sets.
        seconds: that each step took.
    """

    def __init__(self, cfg: CfgNode, folder: RunFolder, data: Data, start: Start, shared: Shared):
        self.cfg = cfg
        self.folder = folder
        self.data = data
        self.start = start
        self.shared = shared
        self.planned = start.plan.applied(cfg) if start.plan else cfg
        self.model = start.model
        self.device = next(start.model.parameters()).device
        self.seconds: dict[str, float] = {}

    def complete(self, resume: bool, stop: StopSignals, watch: Watch | None, save_seconds: float) -> dict:
        """All steps in their order; the result."""
        self._describe_in_folder(resume)
        log = LogFile(self.folder.log) if distributed.is_first() else nullcontext()
        with log, tracking(self.cfg, self.folder) as trackers:
            self._announce()
            flops_per_image, activations = self._count_flops(), self._count_activations()
            loaders, unreadable = self._read()
            trained = self._train(loaders, stop, trackers, watch, save_seconds)
            test = self._test(loaders)
            zero_shot = self._test_untouched(loaders)
            self._save()
            result = self._result(trained, test, zero_shot, flops_per_image, activations, unreadable)
            self._record(result)
            trackers.end(result)
            logger.info(describe(result["cost"]))
            logger.info(summary(result))
        return result

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start

    def _describe_in_folder(self, resume: bool) -> None:
        """Write the config, and what is attached and trains where."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        if not distributed.is_first():
            return
        require_free(self.cfg, self.folder, resume)  # again: another process may have been faster
        remove_partial(self.folder.path)
        write_text(self.folder.config, self.cfg.dump())
        groups = groups_table(describe_groups(self.model, self.cfg.SOLVER))
        write_text(self.folder.wiring, f"{wiring(self.model.vit, self.model.methods)}\n\n{groups}\n")

    def _announce(self) -> None:
        data, model = self.data, self.model
        logger.info("run folder: %s", self.folder.path)
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())
        classes = len(data.class_names)
        logger.info("data: %s (%s), %d classes, trains on %s", data.task.name, sizes, classes, data.train_split)
        parts = [f"{name} {count:,}" for name, count in model.num_trained().items() if count]
        size = f"{sum(p.numel() for p in model.vit.parameters()):,} pre-trained parameters"
        logger.info("model: %s on %s, %s; trains %s", self.cfg.DATA.FEATURE, self.device, size, ", ".join(parts))
        if self.start.plan:
            logger.info("memory: %s", self.start.plan)

    def _count_flops(self) -> int | None:
        """Of one image; counted while the model is in one piece."""
        return self.start.memo.fact("flops", lambda: flops(self.model, self.data.pixels.size))

    def _count_activations(self) -> int | None:
        """Bytes of an image that training keeps for the backward pass; counted before the model is sharded."""
        set_recompute(self.planned, self.model, self.device, self.start.memo)
        return self.start.memo.fact("activations", lambda: activations_per_image(self.planned, self.model, self.device))

    def _read(self) -> tuple[dict[str, Loader], list[str]]:
        """Loaders of all splits, and the files that cannot be read. Of several processes one decodes."""
        with self._timed("read"):
            loaders, unreadable = self.shared.loaders(self.planned, self.data, self.device)
        self.data = same_data(self.folder, self.data)
        return loaders, unreadable

    def _train(
        self,
        loaders: dict[str, Loader],
        stop: StopSignals,
        trackers: Trackers,
        watch: Watch | None,
        save_seconds: float,
    ) -> dict:
        memo = self.start.memo
        trained = train(self.planned, self.model, loaders, self.folder, stop, trackers, memo, watch, save_seconds)
        self.seconds |= trained.pop("seconds")
        return trained

    def _test(self, loaders: dict[str, Loader]) -> dict | None:
        """Metrics of the test set; None without one."""
        with self._timed("test"):
            if "test" not in loaders:
                return None
            network = compiled(self.model, self.cfg, self.start.memo)
            with held(self.model, self.cfg, self.device, self.start.memo):
                return self._metrics(network, loaders["test"], padded=self.cfg.MODEL.COMPILE)

    def _test_untouched(self, loaders: dict[str, Loader]) -> dict | None:
        """Metrics of the pre-trained ViT with its zero-shot head on val and test; None for a split that is missing."""
        if self.start.head is None:
            return None
        with self._timed("zero_shot"):
            untouched = self.shared.untouched(self.cfg, self.start.head, self.device)
            metrics = {name: self._metrics(untouched, loaders[name]) for name in ("val", "test") if name in loaders}
            parts = [f"{name} top-1 {100 * m['top1']:.2f} % of {m['images']:,}" for name, m in metrics.items()]
            logger.info("zero-shot, before training: %s", ", ".join(parts))
            return {"val": None, "test": None} | metrics

    def _metrics(self, network: torch.nn.Module, loader: Loader, padded: bool = False) -> dict:
        return evaluate(network, loader, autocast(self.cfg, self.device), padded=padded).as_dict()

    def _save(self) -> None:
        """What was learned, also in the formats of other libraries."""
        if not self.cfg.MODEL.SAVE_CKPT:
            return
        with self._timed("save"):
            data = self.data
            save_tuned(self.folder.tuned, self.model, self.cfg, data.class_names, data.pixels, self.start.memo)
            if distributed.is_first():
                for name, method in self.model.methods.items():
                    method.export(self.model.vit, self.folder.path / name)

    def _result(
        self,
        trained: dict,
        test: dict | None,
        zero_shot: dict | None,
        flops_per_image: int | None,
        activations: int | None,
        unreadable: list[str],
    ) -> dict:
        """The content of result.json."""
        cfg, data = self.cfg, self.data
        rates = {
            "training": trained.pop("train_images_per_second"),
            "testing": test and test["images"] / self.seconds["test"],
        }
        rows = trained.pop("rows")
        return {
            "test": test,
            **trained,
            "test_best_epoch": best_test_epoch(rows, data.task.metric),
            "zero_shot": zero_shot,
            "parameters": _parameters(self.model),
            "optimizer": describe_groups(self.model, cfg.SOLVER),
            "cost": cost_card(self.model, flops_per_image, activations, rates, self.seconds, self.start.plan),
            "precision": resolve_amp(cfg.SOLVER.AMP, self.device),
            "allocation": self.start.allocation,
            "data": _data(data, unreadable),
            "class_names": data.class_names,
            "pixels": dataclasses.asdict(data.pixels),
            "seed": cfg.SEED,
            "environment": environment(self.device),
            "config": changed(cfg),
            "config_in_full": flatten(cfg),
        }

    def _record(self, result: dict) -> None:
        """Write result.json; nothing is left to resume then."""
        if distributed.is_first():
            write_json(self.folder.result, result)
            self.folder.last.unlink(missing_ok=True)
            self.folder.data.unlink(missing_ok=True)


def _parameters(model: TunedViT) -> dict:
    trained = model.num_trained()
    return {
        "trained": sum(trained.values()),
        "head": trained["head"],
        "by_part": trained,
        "backbone": sum(p.numel() for p in model.vit.parameters()),
    }


def _data(data: Data, unreadable: list[str]) -> dict:
    return {
        "task": data.task.name,
        "metric": data.task.metric,
        "layout": data.layout,
        "version": data.version,
        "notes": data.notes,
        "train_split": data.train_split,
        "images": {name: len(split) for name, split in data.splits.items()},
        "contents": data.contents,
        "left_out": unreadable,
    }


def evaluate_run(folder: RunFolder, cfg: CfgNode) -> dict:
    """Test a finished run's tuned.safetensors again: its test metrics, which should be those in result.json.

    Args:
        cfg: the run's config, with paths, device and the like as they are now.

    Raises:
        FileNotFoundError: the run has no tuned.safetensors, or weights are missing.
        ValueError: ``cfg`` describes another run, the data cannot be used, or there is no test set.
    """
    moved = changed(cfg)
    tuned = load_tuned(folder.path, [text for key in may_move() if key in moved for text in (key, str(moved[key]))])
    if other := different_keys(tuned.cfg, cfg, may_move()):
        raise ValueError(
            f"{folder.path} was trained with another {', '.join(other)}: testing it cannot change that\n"
            + differences(tuned.cfg, cfg, other)
        )
    device = choose_device(cfg.DEVICE)
    if cfg.SOLVER.MEMORY_GB:
        cfg = plan(cfg, tuned.model, device).applied(cfg)
    data = open_data(cfg)
    if data.class_names != tuned.class_names:
        raise ValueError(f"the classes of {cfg.DATA.DATAPATH} are not those that {folder.path} was trained on")
    splits = {name: split for name, split in data.splits.items() if name == "test"}
    data = dataclasses.replace(data, splits=splits, pixels=tuned.pixels)  # whatever the run's config means today
    if not data.splits:
        raise ValueError(f"{folder.path} was trained without a test set (DATA.NO_TEST, or none on disk)")
    set_backends(cfg, device)
    with distributed.together(device):
        loaders, _ = data.loaders(cfg, device)
        then = (folder.read_result() or {}).get("data", {}).get("contents", {}).get("test")
        if then not in (None, data.contents["test"]):
            logger.warning("note: these test images are not those of %s", folder.result)
        network = compiled(tuned.model.to(device), cfg)
        return evaluate(network, loaders["test"], autocast(cfg, device), padded=cfg.MODEL.COMPILE).as_dict()


def summary(result: dict) -> str:
    """The line a run ends with."""
    if result["test"]:
        accuracy = f"test top-1 {100 * result['test']['top1']:.2f} % of {result['test']['images']:,} images"
    elif result["val"]:
        accuracy = f"validation top-1 {100 * result['val']['top1']:.2f} % of {result['val']['images']:,} images"
    else:
        accuracy = "accuracy not measured (DATA.UNMEASURED)"
    parameters = result["parameters"]
    return (
        f"result: {accuracy}, {parameters['trained'] - parameters['head']:,} trained parameters + "
        f"{parameters['head']:,} in the head, {result['cost']['seconds']['train']:.0f} s"
    )
