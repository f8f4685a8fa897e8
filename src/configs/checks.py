"""What types cannot say: values out of range and combinations that cannot run, found before anything is read."""

import math
from collections.abc import Iterable

from fvcore.common.config import CfgNode

from ..data.augment import AUTO_AUGMENT, timm_policy
from ..data.pixels import NORMALIZE, PRESETS, build_pixels
from ..data.tasks import find_task
from ..models.method import Method
from ..models.vit_backbones.convert import clip
from ..models.vit_backbones.zoo import MODEL_ZOO, check_size, find_backbone, patch_size
from ..models.vit_models import METHODS, config_name, method_keys, parse
from ..solver.lr_scheduler import counts_steps, num_epochs

CHOICES = {
    "DATA.TRAIN_SPLIT": ("", "train", "trainval"),
    "DATA.SOURCE": ("", "digits", "tfds", "noah", "fgvc", "lists", "torchvision", "folder", "shards"),
    "DATA.PIXELS": tuple(PRESETS),
    "DATA.DECODER": ("", "tf", "pil"),
    "DATA.RESIZE": ("", "squash", "crop", "squash_crop"),
    "DATA.INTERPOLATION": ("", "bilinear", "bilinear_tf1", "bicubic", "backbone"),
    "DATA.ANTIALIAS": ("", "always", "never"),
    "DATA.NORMALIZE": ("", *NORMALIZE, "backbone"),
    "DATA.DTYPE": ("uint8", "float32"),
    "DATA.AUGMENT": ("", "none", "flip", "crop_flip", "rrc_flip", "rrc_flips"),
    "DATA.CORRUPT": ("stop", "skip"),
    "DATA.CACHE": ("off", "train", "all"),
    "DATA.CACHE_FEATURES": ("auto", "off"),
    "DATA.CACHE_PLACE": ("disk", "memory", "device"),
    "DATA.CLASS_WEIGHTS_TYPE": ("none", "inv", "inv_sqrt"),
    "MODEL.TYPE": ("vit",),
    "MODEL.HEAD_INIT": ("vpt", "zero", "linear", "trunc_normal", "zero_shot"),
    "MODEL.POOL": ("", "token", "avg"),
    "MODEL.POS_EMBED_RESIZE": ("auto", "bilinear", "bicubic"),
    "SOLVER.OPTIMIZER": ("sgd", "adam", "adamw", "lbfgs"),
    "SOLVER.SCHEDULER": ("cosine", "timm", "constant"),
    "SOLVER.DECAY": ("auto", "vpt", "timm", "all", "none"),
    "SOLVER.SCHEDULE_PER": ("epoch", "step"),
    "SOLVER.LOSS": ("softmax", "sigmoid"),
    "SOLVER.AMP": ("off", "bf16", "fp16", "auto"),
    "MODEL.COMPILE_MODE": ("default", "reduce-overhead", "max-autotune"),
}

# Key: (lowest, highest) value that works; the lowest is allowed, None has no bound.
RANGES = {
    "SEED": (0, 2**32 - 1),
    "DATA.CROPSIZE": (1, None),
    "DATA.BATCH_SIZE": (1, None),
    "DATA.EVAL_BATCH_SIZE": (0, None),
    "DATA.NUM_WORKERS": (0, 1024),
    "DATA.CACHE_GB": (0, None),
    "DATA.CACHE_FEATURES_GB": (0, None),
    "DATA.SHOTS": (0, None),
    "DATA.SPLIT_SEED": (0, 2**32 - 1),
    "DATA.WHITE": (0, None),
    "DATA.MAX_PIXELS": (1, None),
    "DATA.JPEG_QUALITY": (0, 100),
    "DATA.COLOR_JITTER": (0, 1),
    "DATA.RANDOM_ERASING": (-1, 1),
    "DATA.MIXUP": (0, None),
    "DATA.CUTMIX": (0, None),
    "MODEL.MLP_NUM": (0, None),
    "SOLVER.BASE_LR": (0, None),
    "SOLVER.WEIGHT_DECAY": (0, None),
    "SOLVER.BIAS_MULTIPLIER": (0, None),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WARMUP_EPOCH": (0, None),
    "SOLVER.TOTAL_EPOCH": (1, None),
    "SOLVER.MIN_STEPS": (0, None),
    "SOLVER.COOLDOWN_EPOCH": (0, None),
    "SOLVER.WARMUP_STEPS": (0, None),
    "SOLVER.MAX_STEPS": (0, None),
    "SOLVER.WARMUP_LR": (0, None),
    "SOLVER.MIN_LR": (0, None),
    "SOLVER.EPS": (0, None),
    "SOLVER.SEARCH_EPOCH": (0, None),
    "SOLVER.PATIENCE": (1, None),
    "SOLVER.EVAL_EVERY": (0, None),
    "SOLVER.SAVE_EVERY": (0, None),
    "SOLVER.LABEL_SMOOTHING": (0, 1),
    "SOLVER.ACCUMULATE": (1, None),
    "SOLVER.CLIP_GRAD": (0, None),
}


def problems(cfg: CfgNode) -> list[str]:
    """Every problem of a config whose keys and types are right, one sentence each."""
    found = _choices(cfg)
    for key, (low, high) in RANGES.items():
        value = _get(cfg, key)
        if not math.isfinite(value) or value < low or (high is not None and value > high):
            found.append(f"{key} is {value}; it must be {f'from {low} to {high}' if high else f'at least {low}'}")
    if not 0 < cfg.DATA.PERCENTAGE <= 1:
        found.append(f"DATA.PERCENTAGE is {cfg.DATA.PERCENTAGE}; it must be more than 0 and at most 1")
    for key in ("VAL_FRACTION", "TEST_FRACTION"):
        if not 0 < cfg.DATA[key] < 1:
            found.append(f"DATA.{key} is {cfg.DATA[key]}; it must be between 0 and 1")
    return found + _data(cfg) + _backbone(cfg) + _methods(cfg) + _solver(cfg)


def methods(cfg: CfgNode) -> list[str]:
    """The problems of the keys under ``MODEL`` alone, for a ViT that is in memory."""
    return _choices(cfg, "MODEL.") + _methods(cfg)


def _choices(cfg: CfgNode, prefix: str = "") -> list[str]:
    wrong = {key: value for key in CHOICES if key.startswith(prefix) and (value := _get(cfg, key)) not in CHOICES[key]}
    return [f"{key} is {value!r}; known: {', '.join(map(repr, CHOICES[key]))}" for key, value in wrong.items()]


def _get(cfg: CfgNode, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _data(cfg: CfgNode) -> list[str]:
    found = []
    try:
        task = find_task(cfg.DATA.NAME)
    except ValueError as error:
        return [str(error)]
    if task.num_classes and cfg.DATA.NUMBER_CLASSES not in (-1, task.num_classes):
        found.append(
            f"DATA.NUMBER_CLASSES is {cfg.DATA.NUMBER_CLASSES}, but {task.name} has {task.num_classes} classes"
        )
    auto = cfg.DATA.AUTO_AUGMENT
    try:
        if auto not in AUTO_AUGMENT:
            timm_policy(auto)
    except ValueError as error:
        known = ", ".join(map(repr, AUTO_AUGMENT))
        found.append(f"DATA.AUTO_AUGMENT: {error}; known: {known}, and timm's, such as 'rand-m9-mstd0.5-inc1'")
    if cfg.DATA.AUGMENT == "crop_flip" and cfg.DATA.RESIZE == "squash":
        found.append("DATA.AUGMENT crop_flip crops a larger image: DATA.RESIZE crop or squash_crop goes with it")
    if cfg.DATA.INTERPOLATION == "bilinear_tf1" and cfg.DATA.ANTIALIAS == "always":
        found.append(
            "DATA.INTERPOLATION bilinear_tf1 is never antialiased: leave DATA.ANTIALIAS always out, or take bilinear"
        )
    for key in ("MEAN", "STD"):
        values = cfg.DATA[key]
        if len(values) not in (0, 3) or not all(isinstance(value, int | float) for value in values):
            found.append(f"DATA.{key} is {values}; it must be three numbers, red, green and blue in [0, 1], or []")
    if any(value == 0 for value in cfg.DATA.STD):
        found.append("DATA.STD has a 0, by which pixels would be divided")
    if cfg.DATA.NUMBER_CLASSES < 2 and cfg.DATA.NUMBER_CLASSES != -1:
        found.append(f"DATA.NUMBER_CLASSES is {cfg.DATA.NUMBER_CLASSES}; it must be at least 2, or -1")
    if cfg.DATA.MULTILABEL:
        found.append(f"DATA.MULTILABEL: the images of {task.name} have one label each")
    if cfg.DATA.NO_TEST and (cfg.DATA.TRAIN_SPLIT or task.train_split) == "trainval":
        found.append("DATA.NO_TEST with training on trainval leaves nothing to measure: DATA.TRAIN_SPLIT train")
    return found


def _backbone(cfg: CfgNode) -> list[str]:
    try:
        row = find_backbone(cfg.DATA.FEATURE)
    except ValueError as error:
        return [str(error)]
    size = cfg.DATA.IMAGE_SIZE
    if len(size) not in (0, 2) or not all(isinstance(side, int) and side > 0 for side in size):
        return [f"DATA.IMAGE_SIZE is {size}; it must be [height, width] in pixels, or []"]
    try:
        if row is not None:
            check_size(tuple(size) or (cfg.DATA.CROPSIZE,) * 2, (patch_size(row),) * 2)
    except ValueError as error:
        return [str(error)]
    if cfg.MODEL.HEAD_INIT == "zero_shot" and (row is None or row.convert is not clip):
        known = ", ".join(name for name, other in MODEL_ZOO.items() if other.convert is clip)
        return [f"MODEL.HEAD_INIT zero_shot needs CLIP's text tower, and {cfg.DATA.FEATURE} has none: choose {known}"]
    return []


def _methods(cfg: CfgNode) -> list[str]:
    try:
        wanted = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    except ValueError as error:
        return [str(error)]
    found = []
    for name, implied in wanted.items():
        keys = method_keys(cfg.MODEL, name, implied)
        found += [f"MODEL.{config_name(name)}.{problem}" for problem in METHODS[name].problems(keys)]
    if cfg.MODEL.HEAD_INIT == "zero_shot":
        found += _zero_shot(cfg, wanted)
    return found


def _zero_shot(cfg: CfgNode, methods: Iterable[str]) -> list[str]:
    found = []
    if cfg.MODEL.MLP_NUM:
        found.append("MODEL.HEAD_INIT zero_shot has no place for the head's hidden layers (MODEL.MLP_NUM)")
    if cfg.MODEL.POOL == "avg":
        found.append("MODEL.HEAD_INIT zero_shot takes CLIP's class token: leave MODEL.POOL avg out")
    if wider := [name for name in methods if METHODS[name].num_features is not Method.num_features]:
        found.append(
            f"MODEL.HEAD_INIT zero_shot and {', '.join(wider)} do not go together: CLIP's projection takes the ViT's "
            "own features, and nothing beside them"
        )
    return found


def _solver(cfg: CfgNode) -> list[str]:
    solver, found = cfg.SOLVER, []
    if solver.LOSS == "sigmoid" and solver.LABEL_SMOOTHING:
        found.append("SOLVER.LABEL_SMOOTHING works with SOLVER.LOSS softmax only")
    if solver.ACCUMULATE > cfg.DATA.BATCH_SIZE:
        found.append(f"SOLVER.ACCUMULATE {solver.ACCUMULATE} is more than DATA.BATCH_SIZE {cfg.DATA.BATCH_SIZE}")
    found += _schedule(solver)
    if solver.OPTIMIZER == "lbfgs" and (reasons := not_logistic(cfg)):
        found.append(f"SOLVER.OPTIMIZER lbfgs is a logistic regression, which has no place for {', '.join(reasons)}")
    if not counts_steps(solver) and (problem := rarely_measured(solver, num_epochs(solver))):
        found.append(problem)
    for key in ("DROP_PATH", "EMA"):
        if not 0 <= solver[key] < 1:
            found.append(f"SOLVER.{key} is {solver[key]}; it must be at least 0 and less than 1")
    if solver.FSDP and solver.EMA:
        found.append("SOLVER.FSDP does not go together with SOLVER.EMA: an average is kept whole")
    if not 0 < solver.LAYER_DECAY <= 1:
        found.append(f"SOLVER.LAYER_DECAY is {solver.LAYER_DECAY}; it must be more than 0 and at most 1")
    if solver.LAYER_DECAY != 1 and not _end2end(cfg):
        found.append("SOLVER.LAYER_DECAY is for MODEL.TRANSFER_TYPE end2end: elsewhere most layers are frozen")
    if solver.BEST_TEST_EPOCH and cfg.DATA.NO_TEST:
        found.append(
            "SOLVER.BEST_TEST_EPOCH tests every epoch, and DATA.NO_TEST reads no test images: leave out one of the two "
            "(for the tested runs of a sweep alone: SWEEP.FINAL.SOLVER.BEST_TEST_EPOCH True)"
        )
    if solver.FSDP and not _end2end(cfg):
        found.append("SOLVER.FSDP is for MODEL.TRANSFER_TYPE end2end: other methods have few states to spread")
    if solver.FSDP and (cfg.MODEL.COMPILE or cfg.MODEL.MLP_NUM or solver.AMP == "fp16"):
        found.append("SOLVER.FSDP does not go together with MODEL.COMPILE, MODEL.MLP_NUM or SOLVER.AMP fp16")
    if cfg.MODEL.MLP_NUM and cfg.DATA.BATCH_SIZE == 1:
        found.append("MODEL.MLP_NUM needs a DATA.BATCH_SIZE of at least 2: the head's batch norm compares images")
    return found


def _end2end(cfg: CfgNode) -> bool:
    return "end2end" in cfg.MODEL.TRANSFER_TYPE.replace("full", "end2end").split("+")


def rarely_measured(solver: CfgNode, epochs: int) -> str:
    """What is wrong with the number of measurements on which stopping early rests; "" if nothing is."""
    if epochs <= solver.PATIENCE or 1 <= solver.EVAL_EVERY <= solver.PATIENCE:
        return ""
    return (
        f"SOLVER.EVAL_EVERY is {solver.EVAL_EVERY}, but stopping after {solver.PATIENCE} epochs without a better "
        "validation accuracy (SOLVER.PATIENCE) needs to measure it at least as often"
    )


def not_logistic(cfg: CfgNode) -> list[str]:
    """What asks for more than a logistic regression on features that are computed once."""
    solver, data, model = cfg.SOLVER, cfg.DATA, cfg.MODEL
    found = [f"MODEL.TRANSFER_TYPE {model.TRANSFER_TYPE}"] if parse(model.TRANSFER_TYPE, cfg.FREQFIT) else []
    wanted = {
        "MODEL.MLP_NUM": model.MLP_NUM,
        "MODEL.HEAD_INIT zero_shot": model.HEAD_INIT == "zero_shot",
        "SOLVER.LOSS sigmoid": solver.LOSS == "sigmoid",
        "SOLVER.LABEL_SMOOTHING": solver.LABEL_SMOOTHING,
        "SOLVER.EMA": solver.EMA,
        "SOLVER.FSDP": solver.FSDP,
        "SOLVER.BEST_TEST_EPOCH": solver.BEST_TEST_EPOCH,
        "DATA.CLASS_WEIGHTS_TYPE": data.CLASS_WEIGHTS_TYPE != "none",
        "random augmentation": _augments(cfg),
    }
    return found + [name for name, value in wanted.items() if value]


def _augments(cfg: CfgNode) -> bool:
    """Whether images look different in every epoch, as far as a config with problems tells."""
    try:
        return build_pixels(cfg, find_task(cfg.DATA.NAME).protocol).random
    except (ValueError, KeyError):
        return False


def _schedule(solver: CfgNode) -> list[str]:
    if solver.BASE_LR == -1:
        return [f"SOLVER.BASE_LR -1 is for SOLVER.OPTIMIZER adamw; {solver.OPTIMIZER} needs a number"]
    found = [
        f"SOLVER.{key} {solver[key]:g} is more than SOLVER.BASE_LR {solver.BASE_LR:g}, the highest learning rate"
        for key in ("MIN_LR", "WARMUP_LR")
        if solver[key] > solver.BASE_LR
    ]
    if solver.SCHEDULER == "constant" and (solver.MIN_LR or solver.COOLDOWN_EPOCH):
        found.append(
            "SOLVER.MIN_LR and SOLVER.COOLDOWN_EPOCH are of a cosine: SOLVER.SCHEDULER constant never gets there"
        )
    if solver.SCHEDULE_LATE and solver.SCHEDULE_PER == "step":
        found.append("SOLVER.SCHEDULE_LATE is for a learning rate per epoch (SOLVER.SCHEDULE_PER epoch, no *_STEPS)")
    if solver.MAX_STEPS and solver.COOLDOWN_EPOCH:
        found.append("SOLVER.MAX_STEPS and SOLVER.COOLDOWN_EPOCH do not go together: all steps are counted")
    if solver.MAX_STEPS and solver.MIN_STEPS:
        found.append("SOLVER.MAX_STEPS and SOLVER.MIN_STEPS do not go together: the first says how many there are")
    return found


def _short_warm_up(solver: CfgNode, epochs: int) -> list[str]:
    found, per_epoch = [], solver.SCHEDULE_PER == "epoch"
    last = epochs - solver.SCHEDULE_LATE  # where the schedule is in the end
    if last < solver.WARMUP_EPOCH or (last == solver.WARMUP_EPOCH and per_epoch):
        found.append(
            f"the run ends within its warm-up (SOLVER.WARMUP_EPOCH {solver.WARMUP_EPOCH}, {epochs} epochs), so the "
            f"learning rate never reaches SOLVER.BASE_LR {solver.BASE_LR:g}"
        )
    if epochs == 1 and solver.WARMUP_EPOCH and per_epoch and not solver.WARMUP_LR:
        found.append("the only epoch has learning rate 0: set SOLVER.WARMUP_EPOCH 0 or SOLVER.SCHEDULE_PER step")
    return found


def warnings(cfg: CfgNode) -> list[str]:
    """What runs, but probably not as meant."""
    found, solver = [], cfg.SOLVER
    epochs = 0 if counts_steps(solver) else num_epochs(solver)  # otherwise only the data can tell
    if epochs and not solver.WARMUP_STEPS:
        found += _short_warm_up(solver, epochs)
    if epochs > solver.PATIENCE and (cfg.DATA.TRAIN_SPLIT or find_task(cfg.DATA.NAME).train_split) == "trainval":
        found.append("SOLVER.PATIENCE has no effect: the validation images are trained on (DATA.TRAIN_SPLIT train)")
    if solver.BEST_TEST_EPOCH:
        found.append(
            "SOLVER.BEST_TEST_EPOCH looks at the test set after every epoch: the best is too high, and for "
            "comparing with papers that print it only; the result is that of the weights that the run ends with"
        )
    if cfg.DATA.FEATURE == "imagenet_supervised":
        found.append("DATA.FEATURE imagenet_supervised is taken to mean sup_vitb16_imagenet21k")
    return found
