"""One run from a config: data, model, training, one look at the test set, and the folder that holds it all."""

import dataclasses
import logging
import os
import time
from contextlib import nullcontext

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from yaml import YAMLError

from ..configs.config import changed, flatten, load_cfg_text
from ..data.loader import Loader
from ..data.opened import Data, open_data
from ..data.sources.text import read_json
from ..models.method import wiring
from ..models.vit_backbones.zoo import find_weights
from ..models.vit_models import TunedViT
from ..solver.optimizer import describe_groups, groups_table
from ..utils import distributed
from ..utils.io import exclusive, remove_partial, write_json, write_text
from ..utils.logging import LogFile
from ..utils.seed import seed_everything
from ..utils.signals import StopSignals
from .checkpoint import load_tuned, save_tuned
from .cost import cost_card, describe, flops
from .evaluator import best_test_epoch, evaluate
from .precision import autocast, resolve_amp, set_backends
from .results import MAY_MOVE, NOT_THE_EXPERIMENT, RunFolder, environment
from .sensitivity import about_allocation, with_allocation
from .shared import Shared
from .step import compiled, require_compiler
from .trackers import require_trackers, tracking
from .trainer import train
from .zero_shot import check_zero_shot, zero_shot_head

logger = logging.getLogger(__name__)


def run(cfg: CfgNode, folder: RunFolder, resume: bool = False, shared: Shared | None = None) -> dict:
    """Train and test as ``cfg`` says, and write everything into ``folder``; the result, as in result.json.

    Under ``torchrun`` all processes call this together; the first one writes.

    Args:
        resume: go on with an interrupted run; a finished one just gives its result.
        shared: with other runs of this process.

    Raises:
        FileExistsError: the folder holds a run, and ``resume`` is not set or its config is another.
        FileNotFoundError, ValueError: missing weights, data that cannot be used, methods that do not fit.
        WriteError: the disk is full or gone; what was written before is intact.
        Interrupted: SIGTERM, SIGINT or SIGUSR1; the same with ``resume`` goes on where it stopped.
    """
    if resume and (result := folder.read_result()):
        _require_same(cfg, folder)
        logger.info("%s is finished already", folder.path)
        logger.info(summary(result))
        return result
    _require_free(cfg, folder, resume)
    device = choose_device(cfg.DEVICE)
    set_backends(cfg, device)
    require_compiler(cfg, device)
    require_trackers(cfg)
    find_weights(cfg.DATA.FEATURE, cfg.MODEL.MODEL_ROOT, cfg.MODEL.WEIGHT_PATH)
    shared = shared or Shared()
    shared.require_methods_fit(cfg)
    zero_shot = cfg.MODEL.HEAD_INIT == "zero_shot"
    if zero_shot:
        check_zero_shot(cfg)
    shared.read_backbone(cfg)
    data = shared.data(cfg)
    if cfg.SOLVER.BEST_TEST_EPOCH and "test" not in data.splits:
        raise ValueError(f"SOLVER.BEST_TEST_EPOCH tests every epoch, but {data.task.name} has no test set here")
    with StopSignals() as stop, distributed.together(device):
        with distributed.first_before_others():
            whole = with_allocation(cfg, data, device, folder, resume or not distributed.is_first())
            head = zero_shot_head(cfg, data.class_names, device) if zero_shot else None
        model = shared.model(whole, len(data.class_names), device, head)
        seed_everything(cfg.SEED + distributed.rank())
        with exclusive(folder.log) if distributed.is_first() else nullcontext():
            return _run(cfg, folder, resume, data, model, head, about_allocation(whole), stop, shared)


def _run(
    cfg: CfgNode,
    folder: RunFolder,
    resume: bool,
    data: Data,
    model: TunedViT,
    head: dict[str, Tensor] | None,
    allocation: dict | None,
    stop: StopSignals,
    shared: Shared,
) -> dict:
    """The run itself, in a folder that is this process's own."""
    device, first = next(model.parameters()).device, distributed.is_first()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if first:
        _require_free(cfg, folder, resume)  # again: another process may have been faster
        remove_partial(folder.path)
        write_text(folder.config, cfg.dump())
        groups = groups_table(describe_groups(model, cfg.SOLVER))
        write_text(folder.wiring, f"{wiring(model.vit, model.methods)}\n\n{groups}\n")
    with LogFile(folder.log) if first else nullcontext(), tracking(cfg, folder) as trackers:
        logger.info("run folder: %s", folder.path)
        _announce(cfg, model, data, device)
        flops_per_image = model.once("flops", lambda: flops(model, data.pixels.size))  # while it is in one piece
        start = time.perf_counter()
        # Of several processes one decodes, the others wait for its files.
        loaders, corrupt = shared.loaders(cfg, data, device)
        seconds = {"read": time.perf_counter() - start}
        data = _same_data(folder, data)
        trained = train(cfg, model, loaders, folder, stop, shared, trackers)
        seconds |= trained.pop("seconds")
        rows = trained.pop("rows")

        start, test = time.perf_counter(), None
        if "test" in loaders:
            network = compiled(model, cfg, model)
            test = evaluate(network, loaders["test"], autocast(cfg, device), padded=cfg.MODEL.COMPILE).as_dict()
        seconds["test"] = time.perf_counter() - start
        zero_shot = None
        if head is not None:
            start = time.perf_counter()
            zero_shot = _zero_shot(cfg, shared.untouched(cfg, head, device), loaders)
            seconds["zero_shot"] = time.perf_counter() - start
        if cfg.MODEL.SAVE_CKPT:
            start = time.perf_counter()
            save_tuned(folder.tuned, model, cfg, data.class_names, data.pixels)
            for name, method in model.methods.items() if first else ():
                method.export(model.vit, folder.path / name)
            seconds["save"] = time.perf_counter() - start
        rates = {
            "training": trained.pop("train_images_per_second"),
            "testing": test and test["images"] / seconds["test"],
        }
        result = {
            "test": test,
            **trained,
            "test_best_epoch": best_test_epoch(rows, data.task.metric),
            "zero_shot": zero_shot,
            "parameters": _parameters(model),
            "optimizer": describe_groups(model, cfg.SOLVER),
            "cost": cost_card(model, flops_per_image, rates, seconds),
            "precision": resolve_amp(cfg.SOLVER.AMP, device),
            "allocation": allocation,
            "data": _describe(data, corrupt),
            "class_names": data.class_names,
            "pixels": dataclasses.asdict(data.pixels),
            "seed": cfg.SEED,
            "environment": environment(device),
            "config": changed(cfg),
            "config_in_full": flatten(cfg),
        }
        if first:
            write_json(folder.result, result)
            folder.last.unlink(missing_ok=True)  # nothing is left to resume
            folder.data.unlink(missing_ok=True)
        trackers.end(result)
        logger.info(describe(result["cost"]))
        logger.info(summary(result))
    return result


def _zero_shot(cfg: CfgNode, untouched: TunedViT, loaders: dict[str, Loader]) -> dict:
    """Metrics of the pre-trained ViT with its zero-shot head on val and test, None for a split that is not there."""
    device = next(untouched.parameters()).device
    names = [name for name in ("val", "test") if name in loaders]
    found = {name: evaluate(untouched, loaders[name], autocast(cfg, device)).as_dict() for name in names}
    said = (f"{name} top-1 {100 * metrics['top1']:.2f} % of {metrics['images']:,}" for name, metrics in found.items())
    logger.info("zero-shot, before training: %s", ", ".join(said))
    return {"val": None, "test": None} | found


def evaluate_run(folder: RunFolder, cfg: CfgNode) -> dict:
    """Test a finished run's tuned.safetensors again: its test metrics, which should be those in result.json.

    Args:
        cfg: the run's config, with paths, device and the like as they are now.

    Raises:
        FileNotFoundError: the run has no tuned.safetensors, or weights are missing.
        ValueError: ``cfg`` describes another run, the data cannot be used, or there is no test set.
    """
    moved = changed(cfg)
    tuned = load_tuned(folder.path, [text for key in MAY_MOVE if key in moved for text in (key, str(moved[key]))])
    if other := _different(tuned.cfg, cfg, MAY_MOVE):
        raise ValueError(
            f"{folder.path} was trained with another {', '.join(other)}: testing it cannot change that\n"
            + differences(tuned.cfg, cfg, other)
        )
    device = choose_device(cfg.DEVICE)
    data = open_data(cfg)
    if data.class_names != tuned.class_names:
        raise ValueError(f"the classes of {cfg.DATA.DATAPATH} are not those that {folder.path} was trained on")
    data.splits = {name: split for name, split in data.splits.items() if name == "test"}
    data.pixels = tuned.pixels  # as it was trained, whatever its config means today
    if not data.splits:
        raise ValueError(f"{folder.path} was trained without a test set (DATA.NO_TEST, or none on disk)")
    set_backends(cfg, device)
    with distributed.together(device):
        loaders, _ = data.loaders(cfg, device)
        then = (folder.read_result() or {}).get("data", {}).get("contents", {}).get("test")
        if then not in (None, data.contents["test"]):
            logger.warning("note: these test images are not those of %s", folder.result)
        network = compiled(tuned.model.to(device), cfg, tuned.model)
        return evaluate(network, loaders["test"], autocast(cfg, device), padded=cfg.MODEL.COMPILE).as_dict()


def choose_device(name: str) -> torch.device:
    """``DEVICE``: "auto" is a GPU if there is one; each of several processes gets its own.

    Raises:
        ValueError: a GPU is asked for and there is none, or the name is no device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.expected() > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"DEVICE {name!r} is no device: use auto, cpu, cuda or cuda:<n>") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"DEVICE {name!r} is not supported: use auto, cpu, cuda or cuda:<n>")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"DEVICE {name!r}: torch sees no GPU; use DEVICE auto or cpu")
    return device


def summary(result: dict) -> str:
    """The line a run ends with."""
    if result["test"]:
        said = f"test top-1 {100 * result['test']['top1']:.2f} % of {result['test']['images']:,} images"
    else:
        said = f"validation top-1 {100 * result['val']['top1']:.2f} % of {result['val']['images']:,} images"
    parameters = result["parameters"]
    return (
        f"result: {said}, {parameters['trained'] - parameters['head']:,} trained parameters + "
        f"{parameters['head']:,} in the head, {result['cost']['seconds']['train']:.0f} s"
    )


def _require_free(cfg: CfgNode, folder: RunFolder, resume: bool) -> None:
    if folder.result.is_file():
        raise FileExistsError(
            f"{folder.path} already holds a result and is not overwritten. Add --resume to see it, or choose another "
            "OUTPUT_DIR or --run-dir"
        )
    if folder.last.is_file() and not resume:
        raise FileExistsError(
            f"{folder.path} holds an interrupted run. Add --resume to go on with it, or remove the folder"
        )
    if resume:
        _require_same(cfg, folder)


def _require_same(cfg: CfgNode, folder: RunFolder) -> None:
    if not folder.config.is_file():
        return
    try:
        before = load_cfg_text(folder.config.read_text())
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{folder.config} is broken: remove {folder.path} to start again") from error
    if other := _different(before, cfg, NOT_THE_EXPERIMENT):
        raise FileExistsError(
            f"{folder.path} holds a run with another config; choose another --run-dir, or remove it. Different:\n"
            + differences(before, cfg, other)
        )


def _same_data(folder: RunFolder, data: Data) -> Data:
    """``data``, with a note if an interrupted run goes on with other images; what it is stands in ``folder.data``.

    Raises:
        ValueError: it would go on with other classes.
    """
    now, notes = data.identity(), []
    if folder.last.is_file() and folder.data.is_file():
        before = read_json(folder.data)
        if (names := before["class_names"]) != now["class_names"]:
            gone = [name for name in names if name not in now["class_names"]]
            new = [name for name in now["class_names"] if name not in names]
            raise ValueError(
                f"{folder.path} was interrupted with other classes: going on would mix up labels. There "
                f"were {len(names)}, now there are {len(now['class_names'])}; gone: {', '.join(gone[:5]) or 'none'}, "
                f"new: {', '.join(new[:5]) or 'none'}. Put the images back, or remove {folder.path}"
            )
        notes = before["notes"] + [
            f"the {name} images are not those with which the run began: {was['images']:,} then, {have['images']:,} now"
            for name, was in before["splits"].items()
            if (have := now["splits"].get(name, {"images": 0})) != was
        ]
        if before.get("pixels") != now["pixels"]:
            notes.append("the run began with other pixels: an earlier version prepared images in another way")
    for note in notes:
        logger.warning("note: %s", note)
    if distributed.is_first():
        write_json(folder.data, now | {"notes": notes})
    return dataclasses.replace(data, notes=data.notes + notes)


def _different(one: CfgNode, other: CfgNode, but: tuple[str, ...]) -> list[str]:
    """The keys in which two configs differ, those in ``but`` aside."""
    ours, theirs = flatten(one), flatten(other)
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key) and key not in but)


def differences(before: CfgNode, now: CfgNode, keys: list[str]) -> str:
    """One line per key: what it was, and what it is now."""
    old, new = flatten(before), flatten(now)
    return "\n".join(f"  - {key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in keys)


def _announce(cfg: CfgNode, model: TunedViT, data: Data, device: torch.device) -> None:
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())
    logger.info(
        "data: %s (%s), %d classes, trains on %s", data.task.name, sizes, len(data.class_names), data.train_split
    )
    parts = [f"{name} {count:,}" for name, count in model.num_trained().items() if count]
    logger.info("model: %s on %s, %s; trains %s", cfg.DATA.FEATURE, device, _size(model), ", ".join(parts))


def _size(model: TunedViT) -> str:
    return f"{sum(p.numel() for p in model.vit.parameters()):,} pre-trained parameters"


def _parameters(model: TunedViT) -> dict:
    trained = model.num_trained()
    return {
        "trained": sum(trained.values()),
        "head": trained["head"],
        "by_part": trained,
        "backbone": sum(p.numel() for p in model.vit.parameters()),
    }


def _describe(data: Data, corrupt: list[str]) -> dict:
    return {
        "task": data.task.name,
        "metric": data.task.metric,
        "layout": data.layout,
        "version": data.version,
        "notes": data.notes,
        "train_split": data.train_split,
        "images": {name: len(split) for name, split in data.splits.items()},
        "contents": data.contents,
        "left_out": corrupt,
    }
