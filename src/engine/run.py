"""One run from a config: data, model, training, one look at the test set, and the folder that holds it all."""

import dataclasses
import logging
import time

import torch
from fvcore.common.config import CfgNode
from yaml import YAMLError

from ..configs.config import changed, flatten, load_cfg_text
from ..data.opened import Data, open_data
from ..models.method import wiring
from ..models.vit_backbones.zoo import find_weights
from ..models.vit_models import TunedViT, build_model
from ..utils.io import exclusive, remove_partial, write_json, write_text
from ..utils.logging import LogFile
from ..utils.seed import seed_everything
from .checkpoint import learned_size, load_tuned, save_tuned
from .evaluator import evaluate
from .results import MAY_MOVE, NOT_THE_EXPERIMENT, RunFolder, environment
from .sensitivity import about_allocation, with_allocation
from .trainer import autocast, train

logger = logging.getLogger(__name__)


def run(cfg: CfgNode, folder: RunFolder, resume: bool = False) -> dict:
    """Train and test as ``cfg`` says, and write everything into ``folder``; the result, as in result.json.

    Args:
        resume: go on with an interrupted run; a finished one just gives its result.

    Raises:
        FileExistsError: the folder holds a run, and ``resume`` is not set or its config is another.
        FileNotFoundError, ValueError: missing weights, data that cannot be used, methods that do not fit.
    """
    if resume and (result := folder.read_result()):
        _require_same(cfg, folder)
        logger.info("%s is finished already", folder.path)
        logger.info(summary(result))
        return result
    _require_free(cfg, folder, resume)
    find_weights(cfg.DATA.FEATURE, cfg.MODEL.MODEL_ROOT, cfg.MODEL.WEIGHT_PATH)
    data = open_data(cfg)
    device = choose_device(cfg.DEVICE)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    whole = with_allocation(cfg, data, device, folder, resume)
    model = build_model(whole, len(data.class_names)).to(device)
    seed_everything(cfg.SEED)

    with exclusive(folder.log), LogFile(folder.log):
        _require_free(cfg, folder, resume)  # again: another process may have been faster
        remove_partial(folder.path)
        logger.info("run folder: %s", folder.path)
        write_text(folder.config, cfg.dump())
        write_text(folder.wiring, wiring(model.vit, model.methods) + "\n")
        _announce(cfg, model, data, device)
        start = time.perf_counter()
        loaders, corrupt = data.loaders(cfg, device)
        read_seconds = time.perf_counter() - start
        trained = train(cfg, model, loaders, folder)

        start = time.perf_counter()
        test = evaluate(model, loaders["test"], autocast(cfg, device)).as_dict() if "test" in loaders else None
        seconds = {
            "read": read_seconds,
            "train": trained.pop("train_seconds"),
            "test": time.perf_counter() - start,
        }
        if cfg.MODEL.SAVE_CKPT:
            save_tuned(folder.tuned, model, cfg, data.class_names, data.pixels)
            for name, method in model.methods.items():
                method.export(model.vit, folder.path / name)
        result = {
            "test": test,
            **trained,
            "parameters": _parameters(model),
            "learned_bytes": learned_size(model),
            "allocation": about_allocation(whole),
            "seconds": seconds,
            "data": _describe(data, corrupt),
            "class_names": data.class_names,
            "pixels": dataclasses.asdict(data.pixels),
            "seed": cfg.SEED,
            "environment": environment(),
            "config": changed(cfg),
        }
        write_json(folder.result, result)
        folder.last.unlink(missing_ok=True)  # nothing is left to resume
        logger.info(summary(result))
    return result


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
        raise ValueError(f"{folder.path} was trained with another {', '.join(other)}: testing it cannot change that")
    device = choose_device(cfg.DEVICE)
    data = open_data(cfg)
    if data.class_names != tuned.class_names:
        raise ValueError(f"the classes of {cfg.DATA.DATAPATH} are not those that {folder.path} was trained on")
    data.splits = {name: split for name, split in data.splits.items() if name == "test"}
    if not data.splits:
        raise ValueError(f"{folder.path} was trained without a test set (DATA.NO_TEST, or none on disk)")
    loaders, _ = data.loaders(cfg, device)
    return evaluate(tuned.model.to(device), loaders["test"], autocast(cfg, device)).as_dict()


def choose_device(name: str) -> torch.device:
    """``DEVICE``: "auto" is a GPU if there is one.

    Raises:
        ValueError: a GPU is asked for and there is none, or the name is no device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
        f"{parameters['head']:,} in the head, {result['seconds']['train']:.0f} s"
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
            f"{folder.path} holds a run with another config (different: {', '.join(other)}); choose another --run-dir, "
            "or remove it"
        )


def _different(one: CfgNode, other: CfgNode, but: tuple[str, ...]) -> list[str]:
    """The keys in which two configs differ, those in ``but`` aside."""
    ours, theirs = flatten(one), flatten(other)
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key) and key not in but)


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
        "left_out": corrupt,
    }
