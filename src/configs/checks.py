"""Checks beyond single keys: names of tasks, backbones and methods, and keys that do not go together.

Everything is checked before anything is read. A check that needs code which imports torch imports it then: only for
keys that are set, and valid as far as they can be checked without.
"""

import re
from collections.abc import Callable, Collection, Iterable

from fvcore.common.config import CfgNode

from ..data.presets import AUTO_AUGMENT
from ..data.tasks import find_task
from ..models.vit_backbones.refusals import check_size, unknown_backbone
from ..solver.lr_scheduler import counts_steps, num_epochs
from . import facts
from .catalogue import catalogue, method_classes
from .methods import config_name, method_keys, read_methods

# A config, and keys that are reported already -> what is wrong, one sentence each, that is no consequence of those.
Check = Callable[[CfgNode, Collection[str]], list[str]]


def problems(cfg: CfgNode, reported: Collection[str] = ()) -> list[str]:
    """Every problem of a config whose keys, types and single values are right."""
    names = {
        "DEVICE": _device(cfg),
        "DATA.NAME": _task(cfg),
        "DATA.FEATURE": _backbone(cfg),
        "MODEL.TRANSFER_TYPE": _names(cfg),
    }
    before, reported = reported, {*reported, *(key for key, wrong in names.items() if wrong)}
    first = [sentence for wrong in names.values() for sentence in wrong]
    rest = [*_task_settings(cfg), *_pixels(cfg), *_size(cfg), *_methods(cfg), *_zero_shot(cfg), *_solver(cfg)]
    return _without_consequences(first, before) + _without_consequences(rest, reported)


def methods(cfg: CfgNode, reported: Collection[str] = ()) -> list[str]:
    """The problems of the keys under ``MODEL`` alone, for a ViT that is in memory."""
    return _without_consequences([*_names(cfg), *_methods(cfg), *_zero_shot(cfg)], reported)


def nothing(cfg: CfgNode, reported: Collection[str] = ()) -> list[str]:
    """No check, where only single keys are asked for."""
    return []


def _without_consequences(sentences: Iterable[str], reported: Collection[str]) -> list[str]:
    """Without those that name a key which is reported already: they may be right only because it is wrong."""
    return [sentence for sentence in sentences if not any(_names_key(sentence, key) for key in reported)]


def _names_key(sentence: str, key: str) -> bool:
    node, _, last = key.rpartition(".")
    pattern = rf"(?<![\w.]){re.escape(key)}(?![\w.])"
    if "." in node and sentence.startswith(f"{node}."):  # of a method, which names its keys by their last part
        pattern += rf"|\b{re.escape(last)}\b"
    return bool(re.search(pattern, sentence))


def _device(cfg: CfgNode) -> list[str]:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", cfg.DEVICE):
        return []
    return [f"DEVICE is {cfg.DEVICE!r}; it must be auto, cpu, cuda or cuda:<n>"]


def _task(cfg: CfgNode) -> list[str]:
    try:
        find_task(cfg.DATA.NAME)
    except ValueError as error:
        return [str(error)]
    return []


def _task_settings(cfg: CfgNode) -> list[str]:
    """Keys that contradict the task, if that is known."""
    try:
        task = find_task(cfg.DATA.NAME)
    except ValueError:  # reported as a problem of the name
        return []
    sentences = []
    if task.num_classes and cfg.DATA.NUMBER_CLASSES not in (-1, task.num_classes):
        sentences.append(
            f"DATA.NUMBER_CLASSES is {cfg.DATA.NUMBER_CLASSES}, but {task.name} has {task.num_classes} classes"
        )
    if cfg.DATA.MULTILABEL:
        sentences.append(f"DATA.MULTILABEL is True, but the images of {task.name} have one label each")
    if cfg.DATA.NO_TEST and facts.train_split(cfg) == "trainval":
        sentences.append(
            "DATA.NO_TEST together with training on trainval leaves nothing to measure: set DATA.TRAIN_SPLIT train"
        )
    return sentences


def _pixels(cfg: CfgNode) -> list[str]:
    sentences = _policy(cfg.DATA.AUTO_AUGMENT)
    if cfg.DATA.AUGMENT == "crop_flip" and cfg.DATA.RESIZE == "squash":
        sentences.append("DATA.AUGMENT crop_flip crops a larger image: set DATA.RESIZE to crop or squash_crop")
    if cfg.DATA.INTERPOLATION == "bilinear_tf1" and cfg.DATA.ANTIALIAS == "always":
        sentences.append(
            "DATA.INTERPOLATION bilinear_tf1 is never antialiased: remove DATA.ANTIALIAS always, or choose bilinear"
        )
    if facts.is_native(cfg) and (useless := facts.augments_batches(cfg)):
        settings = " and ".join(f"DATA.{name.upper()} 0" for name in useless)
        sentences.append(
            f"DATA.RESIZE native has no place for {', '.join(useless)}, which the task or a key sets and which needs "
            f"images of one shape: set {settings}"
        )
    if any(value == 0 for value in cfg.DATA.STD):
        sentences.append("DATA.STD contains a 0, and pixels are divided by it")
    return sentences


def _policy(name: str) -> list[str]:
    """What is wrong with DATA.AUTO_AUGMENT."""
    if name in AUTO_AUGMENT:
        return []
    from ..data.augment import timm_policy  # late: it imports torch, for policies of timm's alone

    try:
        timm_policy(name)
    except ValueError as error:
        choices = ", ".join(map(repr, AUTO_AUGMENT))
        return [f"DATA.AUTO_AUGMENT: {error}; known: {choices}, and timm's, such as 'rand-m9-mstd0.5-inc1'"]
    return []


def _backbone(cfg: CfgNode) -> list[str]:
    name = cfg.DATA.FEATURE
    if name.startswith(("timm:", "hf:")):
        from ..models.vit_backbones.zoo import find_backbone  # late: it imports torch and timm, which knows the names

        try:
            find_backbone(name)
        except ValueError as error:
            return [str(error)]
    elif facts.backbone(name) is None:
        return [unknown_backbone(name, catalogue().backbones)]
    return []


def _size(cfg: CfgNode) -> list[str]:
    """Whether the backbone's patches tile the image; a timm:<name> says so itself, when it is built."""
    row = facts.backbone(cfg.DATA.FEATURE)
    try:
        if row is not None and row.patch_size:
            check_size(facts.image_size(cfg), (row.patch_size,) * 2)
    except ValueError as error:
        return [str(error)]
    return []


def _names(cfg: CfgNode) -> list[str]:
    return read_methods(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)[1]


def _methods(cfg: CfgNode) -> list[str]:
    """Problems of methods' keys together, and of those that a name such as partial-0 implies."""
    sentences = []
    for name, implied in read_methods(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)[0].items():
        node, keys = f"MODEL.{config_name(name)}.", catalogue().keys
        sentences += [problem for key, value in implied.items() if (problem := keys[node + key].problem(value))]
        own = method_keys(cfg.MODEL, name, implied)
        is_set = any(value != keys[node + key].default for key, value in own.items())
        if is_set and catalogue().methods[name].own_checks:  # defaults go together, so that this need not import torch
            sentences += [node + problem for problem in method_classes()[name].problems(own)]
    return sentences


def _zero_shot(cfg: CfgNode) -> list[str]:
    sentences, row = [], facts.backbone(cfg.DATA.FEATURE)
    if cfg.MODEL.HEAD_INIT != "zero_shot":
        return sentences
    if cfg.DATA.FEATURE and (row is None or not row.has_text):
        names = ", ".join(name for name, other in catalogue().backbones.items() if other.has_text)
        sentences.append(
            f"MODEL.HEAD_INIT zero_shot needs CLIP's text tower, and {cfg.DATA.FEATURE} has none: choose {names}"
        )
    if cfg.MODEL.MLP_NUM:
        sentences.append("MODEL.HEAD_INIT zero_shot has no place for hidden layers in the head (MODEL.MLP_NUM)")
    if cfg.MODEL.POOL == "avg":
        sentences.append("MODEL.HEAD_INIT zero_shot uses CLIP's class token: remove MODEL.POOL avg")
    methods, _ = read_methods(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    if wider := [name for name in methods if catalogue().methods[name].own_width]:
        sentences.append(
            f"MODEL.HEAD_INIT zero_shot and {', '.join(wider)} do not go together: CLIP's projection reads the ViT's "
            "own features alone"
        )
    return sentences


def _solver(cfg: CfgNode) -> list[str]:
    solver, sentences = cfg.SOLVER, []
    if solver.LOSS == "sigmoid" and solver.LABEL_SMOOTHING:
        sentences.append("SOLVER.LABEL_SMOOTHING works with SOLVER.LOSS softmax only")
    if solver.ACCUMULATE > cfg.DATA.BATCH_SIZE:
        sentences.append(f"SOLVER.ACCUMULATE {solver.ACCUMULATE} is more than DATA.BATCH_SIZE {cfg.DATA.BATCH_SIZE}")
    sentences += _schedule(solver)
    if solver.OPTIMIZER == "lbfgs" and (reasons := not_logistic(cfg)):
        sentences.append(
            f"SOLVER.OPTIMIZER lbfgs is a logistic regression, which has no place for {', '.join(reasons)}"
        )
    if not counts_steps(solver) and (problem := rarely_measured(solver, num_epochs(solver))):
        sentences.append(problem)
    if solver.FSDP and solver.EMA:
        sentences.append("SOLVER.FSDP does not work with SOLVER.EMA: the average is not sharded")
    if solver.LAYER_DECAY != 1 and not facts.trains_everything(cfg):
        sentences.append("SOLVER.LAYER_DECAY is for MODEL.TRANSFER_TYPE end2end: other methods freeze most layers")
    if solver.BEST_TEST_EPOCH and cfg.DATA.NO_TEST:
        sentences.append(
            "SOLVER.BEST_TEST_EPOCH tests every epoch, and DATA.NO_TEST reads no test images: remove one of them "
            "(for the tested runs of a sweep alone: SWEEP.FINAL.SOLVER.BEST_TEST_EPOCH True)"
        )
    if solver.FSDP and not facts.trains_everything(cfg):
        sentences.append("SOLVER.FSDP is for MODEL.TRANSFER_TYPE end2end: other methods have few states to shard")
    if solver.FSDP and (cfg.MODEL.COMPILE or cfg.MODEL.MLP_NUM or solver.AMP == "fp16"):
        sentences.append("SOLVER.FSDP does not work with MODEL.COMPILE, MODEL.MLP_NUM or SOLVER.AMP fp16")
    if solver.FSDP and solver.MEMORY_GB:
        sentences.append("SOLVER.MEMORY_GB cannot plan for SOLVER.FSDP, which spreads weights over processes")
    if facts.is_native(cfg) and solver.MEMORY_GB:
        sentences.append(
            "SOLVER.MEMORY_GB cannot plan for DATA.RESIZE native: what images take depends on their shapes"
        )
    if cfg.MODEL.MLP_NUM and cfg.DATA.BATCH_SIZE == 1:
        sentences.append("MODEL.MLP_NUM needs a DATA.BATCH_SIZE of at least 2: the head's batch norm compares images")
    return sentences


def rarely_measured(solver: CfgNode, epochs: int) -> str:
    """What is wrong with how often a run that may stop early validates; "" if nothing is."""
    if epochs <= solver.PATIENCE or 1 <= solver.EVAL_EVERY <= solver.PATIENCE:
        return ""
    return (
        f"SOLVER.EVAL_EVERY is {solver.EVAL_EVERY}, but stopping after {solver.PATIENCE} epochs without a better "
        "validation accuracy (SOLVER.PATIENCE) needs validation at least as often"
    )


def not_logistic(cfg: CfgNode) -> list[str]:
    """The settings that need more than a logistic regression on features that are computed once."""
    solver, data, model = cfg.SOLVER, cfg.DATA, cfg.MODEL
    methods, _ = read_methods(model.TRANSFER_TYPE, cfg.FREQFIT)
    sentences = [f"MODEL.TRANSFER_TYPE {model.TRANSFER_TYPE}"] if methods else []
    conflicts = {
        "MODEL.MLP_NUM": model.MLP_NUM,
        "MODEL.HEAD_INIT zero_shot": model.HEAD_INIT == "zero_shot",
        "SOLVER.LOSS sigmoid": solver.LOSS == "sigmoid",
        "SOLVER.LABEL_SMOOTHING": solver.LABEL_SMOOTHING,
        "SOLVER.EMA": solver.EMA,
        "SOLVER.FSDP": solver.FSDP,
        "SOLVER.BEST_TEST_EPOCH": solver.BEST_TEST_EPOCH,
        "DATA.CLASS_WEIGHTS_TYPE": data.CLASS_WEIGHTS_TYPE != "none",
        "random augmentation": facts.images_vary(cfg),
    }
    return sentences + [name for name, value in conflicts.items() if value]


def _schedule(solver: CfgNode) -> list[str]:
    if solver.BASE_LR == -1:
        return [f"SOLVER.BASE_LR -1 is for SOLVER.OPTIMIZER adamw; {solver.OPTIMIZER} needs a number"]
    sentences = [
        f"SOLVER.{key} {solver[key]:g} is more than SOLVER.BASE_LR {solver.BASE_LR:g}, the highest learning rate"
        for key in ("MIN_LR", "WARMUP_LR")
        if solver[key] > solver.BASE_LR
    ]
    if solver.SCHEDULER == "constant" and (solver.MIN_LR or solver.COOLDOWN_EPOCH):
        sentences.append(
            "SOLVER.MIN_LR and SOLVER.COOLDOWN_EPOCH belong to a cosine: SOLVER.SCHEDULER constant never reaches them"
        )
    if solver.SCHEDULE_LATE and solver.SCHEDULE_PER == "step":
        sentences.append(
            "SOLVER.SCHEDULE_LATE needs a learning rate per epoch (SOLVER.SCHEDULE_PER epoch, and no *_STEPS)"
        )
    if solver.MAX_STEPS and solver.COOLDOWN_EPOCH:
        sentences.append("SOLVER.MAX_STEPS and SOLVER.COOLDOWN_EPOCH do not go together: MAX_STEPS counts all steps")
    if solver.MAX_STEPS and solver.MIN_STEPS:
        sentences.append("SOLVER.MAX_STEPS and SOLVER.MIN_STEPS do not go together: MAX_STEPS is the exact number")
    return sentences


def _short_warm_up(solver: CfgNode, epochs: int) -> list[str]:
    sentences, per_epoch = [], solver.SCHEDULE_PER == "epoch"
    last = epochs - solver.SCHEDULE_LATE  # where the schedule is in the end
    if last < solver.WARMUP_EPOCH or (last == solver.WARMUP_EPOCH and per_epoch):
        sentences.append(
            f"the run ends within its warm-up (SOLVER.WARMUP_EPOCH {solver.WARMUP_EPOCH}, {epochs} epochs), so the "
            f"learning rate never reaches SOLVER.BASE_LR {solver.BASE_LR:g}"
        )
    if epochs == 1 and solver.WARMUP_EPOCH and per_epoch and not solver.WARMUP_LR:
        sentences.append("the only epoch has learning rate 0: set SOLVER.WARMUP_EPOCH 0 or SOLVER.SCHEDULE_PER step")
    return sentences


def warnings(cfg: CfgNode) -> list[str]:
    """What runs, but probably not as meant."""
    sentences, solver = [], cfg.SOLVER
    epochs = 0 if counts_steps(solver) else num_epochs(solver)  # otherwise only the data can tell
    if epochs and not solver.WARMUP_STEPS:
        sentences += _short_warm_up(solver, epochs)
    if epochs > solver.PATIENCE and facts.train_split(cfg) == "trainval":
        sentences.append(
            "SOLVER.PATIENCE has no effect: training uses the validation images (set DATA.TRAIN_SPLIT train)"
        )
    if solver.BEST_TEST_EPOCH:
        sentences.append(
            "SOLVER.BEST_TEST_EPOCH tests after every epoch: the best of these accuracies is too high, and serves only "
            "to compare with papers that print it; the run's result is that of its final weights"
        )
    if cfg.DATA.FEATURE == "imagenet_supervised":
        sentences.append("DATA.FEATURE imagenet_supervised is read as sup_vitb16_imagenet21k")
    return sentences
