"""Every config key but the methods' own, which each method declares (``defaults`` in src/models/methods/*.py).

The names are VPT's and FreqFiT's, so that YAML files and command lines written for them run here; what became of keys
that no longer mean anything is in legacy.py, what types cannot say in checks.py.
"""

import difflib
import functools
import logging
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from ..models.vit_models import METHODS, config_name
from . import checks, legacy

logger = logging.getLogger(__name__)

Check = Callable[[CfgNode], list[str]]  # a config -> what is wrong with it, one sentence each
Setting = tuple[str, Any, str]  # key, value, and where it was said


class ConfigError(ValueError):
    """A config that cannot run; the message lists every problem found."""


def get_cfg() -> CfgNode:
    """A fresh config with every key at its default."""
    cfg = CfgNode()

    # Seed of initialisation, batch order, augmentation and dropout.
    cfg.SEED = 42
    # Runs are written to OUTPUT_DIR/<data>/<backbone>/<methods>/lr..._wd..._seed..._<hash of the config>.
    cfg.OUTPUT_DIR = "./output"
    # Weights & Biases: the project that is told how the run goes, "" for none. Needs the package wandb; who, where and
    # whether offline is said by wandb's own variables (WANDB_ENTITY, WANDB_MODE, ...).
    cfg.WANDB = ""
    # MLflow: the tracking URI, such as "http://host:5000" or "sqlite:///mlflow.db", "" for none. Needs the package
    # mlflow; the experiment is MLFLOW_EXPERIMENT_NAME, or "vitune".
    cfg.MLFLOW = ""
    # Filter before every block: "freqfit" (complex), "freqfit_real" (FreqFit*), "ssf" (scale and shift), "" for none.
    # Their own keys are under MODEL.FREQFIT, MODEL.FREQFIT_REAL and MODEL.SCALE_SHIFT.
    cfg.FREQFIT = ""
    # Where to compute: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:<n>".
    cfg.DEVICE = "auto"
    # Let cuDNN time its algorithms at the start (only the patch convolution has any).
    cfg.CUDNN_BENCHMARK = False
    # Use only GPU operations that give the same bits every time, some of them slower. On a CPU all do.
    cfg.DETERMINISTIC = False

    cfg.DATA = CfgNode()
    # The data set: a name or alias in src/data/tasks.py. "folder" is your own images.
    cfg.DATA.NAME = ""
    # Its folder on disk; not needed for digits, which ship with scikit-learn.
    cfg.DATA.DATAPATH = ""
    # The pre-trained backbone: a name in src/models/vit_backbones/zoo.py, or timm:<name>.
    cfg.DATA.FEATURE = ""
    # Images are resized to CROPSIZE x CROPSIZE pixels.
    cfg.DATA.CROPSIZE = 224
    # [height, width] in pixels, for images that are not square; empty: CROPSIZE.
    cfg.DATA.IMAGE_SIZE = []
    # Number of classes; -1: what the data set has. Another number than the data set's is an error.
    cfg.DATA.NUMBER_CLASSES = -1
    # Images per training step, over all processes.
    cfg.DATA.BATCH_SIZE = 32
    # Images per evaluation step; 0: as in training on a CPU, on a GPU four times as many, up to 256.
    cfg.DATA.EVAL_BATCH_SIZE = 0
    # What trains: "train" (validates on val), "trainval" (no validation), "" (the task's own choice, see tasks.py).
    cfg.DATA.TRAIN_SPLIT = ""
    # Do not read the test set: for tuning on val.
    cfg.DATA.NO_TEST = False
    # Fraction of the training images used, stratified over classes; the choice is the same for every SEED.
    cfg.DATA.PERCENTAGE = 1.0
    # Fraction of train/ that becomes val where a folder has no val/; stratified, the same for every SEED.
    cfg.DATA.VAL_FRACTION = 0.2
    # How the data set lies in DATAPATH, where there is a choice: "tfds", "noah", "fgvc", "lists", "torchvision",
    # "folder", "shards"; "": the first of the task's that is there.
    cfg.DATA.SOURCE = ""
    # Version of a TFDS directory, where several are there; "": the one that VPT and FreqFiT use, else the newest.
    cfg.DATA.VERSION = ""
    # Training images of each class, 0 for all; few-shot tasks have lists for 1, 2, 4, 8 and 16, and 0 means 16 there.
    cfg.DATA.SHOTS = 0
    # Which of several published splits (few-shot lists, subsets of many-shot tasks), or the seed that draws one.
    cfg.DATA.SPLIT_SEED = 0
    # A list file of what trains, instead of the data set's own: lines "<image> <label>", or indices into its train set,
    # one a line or in a .npy file; of one with two dimensions, SPLIT_SEED chooses the row.
    cfg.DATA.TRAIN_LIST = ""
    # The same for validation.
    cfg.DATA.VAL_LIST = ""
    # The same for testing; indices count the test set.
    cfg.DATA.TEST_LIST = ""
    # What is done with images: "vpt" (VPT and FreqFiT), "noah" (NOAH, SPT), "study" (the unifying study),
    # "backbone" (as in its pre-training). The table is in src/data/pixels.py; the next keys change parts of it.
    cfg.DATA.PIXELS = "vpt"
    # How JPEG files are decoded: "tf" (TensorFlow's fast inverse DCT), "pil" (Pillow's accurate one), "": by PIXELS.
    cfg.DATA.DECODER = ""
    # The value that is white in images with more than 8 bits a channel, such as 4095 for 12 bits in 16, 255 for floats
    # up to 255; 0: 65535 of integers, 1 of floats, and values outside of that are an error.
    cfg.DATA.WHITE = 0.0
    # Height times width of the largest image that is decoded, which takes 7 bytes of memory for each; larger ones are
    # treated as broken.
    cfg.DATA.MAX_PIXELS = 134_217_728
    # Encode every image as JPEG with this quality first (1 to 100, colours at half the resolution), as was done to the
    # VTAB-1k folders that circulate (75); 0: images as they are.
    cfg.DATA.JPEG_QUALITY = 0
    # In evaluation: "squash" (to the input size), "crop" (the shorter side to 8/7 of it, the middle), "squash_crop" (to
    # 8/7 of it, the middle), rounded down, "": by the task, and "crop" with AUGMENT crop_flip.
    cfg.DATA.RESIZE = ""
    # "bilinear", "bicubic", "bilinear_tf1" (TensorFlow 1's, as in VPT and FreqFiT: output pixel i of n reads position
    # i * N / n, not (i + 0.5) * N / n - 0.5; never antialiased), "backbone" (as in its pre-training), "": by PIXELS.
    cfg.DATA.INTERPOLATION = ""
    # "always" (Pillow's resize), "never" (TensorFlow's default), "": by PIXELS. With "bilinear" and "never" pixels are
    # those of TensorFlow 2's tf.image.resize.
    cfg.DATA.ANTIALIAS = ""
    # "imagenet", "inception" (0.5), "clip", "backbone" (of its pre-training), "none" (pixels in [0, 1]), "": by PIXELS.
    cfg.DATA.NORMALIZE = ""
    # Mean of red, green and blue in [0, 1]; empty: by NORMALIZE.
    cfg.DATA.MEAN = []
    # Their standard deviations; empty: by NORMALIZE.
    cfg.DATA.STD = []
    # Type of resized pixels: "uint8" (at most 1 of 255 off), or "float32" (exact, four times the memory).
    cfg.DATA.DTYPE = "uint8"
    # Crops and flips in training: "none"; "flip"; "crop_flip" (random crop of an image resized to 8/7 of the input
    # size); "rrc_flip" (random resized crop); "rrc_flips" (also upside down).  "": the task's own choice.
    cfg.DATA.AUGMENT = ""
    # After that: "randaugment", "trivialaugment" (torchvision's), a policy of timm's ("rand-m9-mstd0.5-inc1"), "none";
    # "": the task's own choice.
    cfg.DATA.AUTO_AUGMENT = ""
    # Strength of random brightness, contrast and saturation in training, 0 for none.
    cfg.DATA.COLOR_JITTER = 0.0
    # Probability of erasing a random rectangle in training; -1: the task's own choice.
    cfg.DATA.RANDOM_ERASING = -1.0
    # Mixup's alpha, 0 for none; with CutMix as well, each batch gets one of the two.
    cfg.DATA.MIXUP = 0.0
    # CutMix's alpha, 0 for none.
    cfg.DATA.CUTMIX = 0.0
    # Image files that cannot be decoded: "stop", with all of them listed, or "skip" and list them in the result.
    cfg.DATA.CORRUPT = "stop"
    # Whose decoded images are kept on disk for later epochs and runs: "train" (and val), "all" (and test) or "off".
    cfg.DATA.CACHE = "train"
    # Where; "": $XDG_CACHE_HOME/vitune/images, or ~/.cache/vitune/images.
    cfg.DATA.CACHE_DIR = ""
    # A run keeps at most this many GiB of decoded images; a split that does not fit is decoded again in every epoch.
    cfg.DATA.CACHE_GB = 16.0
    # Where kept images are while a run needs them: "disk" (mapped), "memory", or "device" (the GPU's memory).
    cfg.DATA.CACHE_PLACE = "disk"
    # Activations of the network's frozen first part, unless images look different in every epoch: "auto" computes them
    # once for every image of train and val, and keeps them on disk beside the images (not if CACHE is "off"); "off":
    # they are computed in every epoch.
    cfg.DATA.CACHE_FEATURES = "auto"
    # A run keeps at most this many GiB of them; if they take more, they are computed in every epoch. Those on disk and
    # the images of train and val take at most CACHE_GB, those in memory a quarter of it.
    cfg.DATA.CACHE_FEATURES_GB = 16.0
    # Threads that decode images.
    cfg.DATA.NUM_WORKERS = 4
    # Whether an image may have several labels. No source here has such labels yet.
    cfg.DATA.MULTILABEL = False
    # Weights of the classes in the loss: "none", "inv" (1 / images of the class) or "inv_sqrt"; they average to one.
    cfg.DATA.CLASS_WEIGHTS_TYPE = "none"

    cfg.MODEL = CfgNode()
    # VPT's name for the kind of backbone. Here every backbone is a ViT, chosen by DATA.FEATURE.
    cfg.MODEL.TYPE = "vit"
    # What is tuned: "linear" (the head), or methods of src/models/vit_models.py joined by "+".
    cfg.MODEL.TRANSFER_TYPE = "linear"
    # Folder with the pre-trained weights.
    cfg.MODEL.MODEL_ROOT = "pretrained"
    # A weights file to read instead of the backbone's usual one; it must have the same format.
    cfg.MODEL.WEIGHT_PATH = ""
    # How position embeddings are resized for other image sizes: "bilinear" (VPT), "bicubic" (timm), "auto" (DINOv2:
    # bicubic, others: bilinear; timm:<name> always bicubic).
    cfg.MODEL.POS_EMBED_RESIZE = "auto"
    # Hidden layers of the head.
    cfg.MODEL.MLP_NUM = 0
    # How the head starts: "vpt" (random, large for few classes: for SGD with large learning rates), "zero", "linear"
    # (torch's nn.Linear, as FacT, Convpass, RepAdapter and the unifying study have it), "trunc_normal" (std 0.02, bias
    # zero, as SSF, SPT and timm's ViTs have it), or "zero_shot" (CLIP backbones: CLIP's projection, then the text
    # features of the class names, from the same weights file). "auto": "vpt" with sgd and in settings written for VPT
    # or FreqFiT, "zero" with adam and adamw; a run's config.yaml says which.
    cfg.MODEL.HEAD_INIT = "auto"
    # Texts that a class name is put into, in the place of {}, for "zero_shot": "imagenet" (the 80 that OpenAI used
    # there), one such as "a photo of a {}.", or a file with one on each line.
    cfg.MODEL.HEAD_TEMPLATES = "imagenet"
    # A file with one class name on each line, in the order of labels, for "zero_shot"; "": the data set's own names
    # ("golden_retriever" is read as "golden retriever"), and for ImageNet's classes those that open_clip has.
    cfg.MODEL.HEAD_CLASS_NAMES = ""
    # Compile the model with torch.compile: a wait at the start, then faster steps on a GPU.
    cfg.MODEL.COMPILE = False
    # "default"; "reduce-overhead" (CUDA graphs, for small batches); "max-autotune" (measures kernels first).
    cfg.MODEL.COMPILE_MODE = "default"
    # Keep only what enters each block and compute the rest again in the backward pass: less memory, more time.
    cfg.MODEL.GRAD_CHECKPOINT = False
    # Write what was learned (tuned.safetensors) and, after every epoch, what is needed to resume (last.ckpt).
    cfg.MODEL.SAVE_CKPT = True

    cfg.SOLVER = CfgNode()
    # "sgd", "adam" (L2 in the gradient) or "adamw" (decoupled weight decay).
    cfg.SOLVER.OPTIMIZER = "sgd"
    # The highest learning rate, used as it is: not scaled by the batch size.
    cfg.SOLVER.BASE_LR = 0.01
    # Weight decay of all that trains, but the head's last bias (adamw: but every bias).
    cfg.SOLVER.WEIGHT_DECAY = 0.0001
    # Learning rate of biases, the head's last excepted, as a multiple of the others'.
    cfg.SOLVER.BIAS_MULTIPLIER = 1.0
    # Momentum of sgd.
    cfg.SOLVER.MOMENTUM = 0.9
    # "cosine": linear warm-up, then half a cosine to zero; "constant": warm-up, then BASE_LR.
    cfg.SOLVER.SCHEDULER = "cosine"
    # When the learning rate changes: "epoch" (VPT: the first warm-up epoch has learning rate 0) or "step".
    cfg.SOLVER.SCHEDULE_PER = "epoch"
    # Epochs of warm-up.
    cfg.SOLVER.WARMUP_EPOCH = 5
    # Epochs in all.
    cfg.SOLVER.TOTAL_EPOCH = 30
    # Stop after this many epochs, on the schedule of TOTAL_EPOCH; 0: never.
    cfg.SOLVER.SEARCH_EPOCH = 0
    # Stop when validation accuracy has not improved for this many epochs, and take the best epoch's weights. Needs
    # DATA.TRAIN_SPLIT "train"; as many as TOTAL_EPOCH or more: never, and the last epoch's weights are taken.
    cfg.SOLVER.PATIENCE = 300
    # Measure on the validation images after every so many epochs, and after the last; 0: after the last only.
    cfg.SOLVER.EVAL_EVERY = 1
    # Also test after every epoch, and record the best in the result, as test_best_epoch: many papers print it, though
    # it is chosen on the test set. Nothing is chosen by it here, and reports have it only in columns of that name.
    cfg.SOLVER.BEST_TEST_EPOCH = False
    # Write last.ckpt also after every so many steps, for long epochs; 0: after every epoch only.
    cfg.SOLVER.SAVE_EVERY = 0
    # "softmax" (cross-entropy) or "sigmoid" (one binary cross-entropy per class).
    cfg.SOLVER.LOSS = "softmax"
    # Share of the target spread evenly over all classes (softmax only).
    cfg.SOLVER.LABEL_SMOOTHING = 0.0
    # Precision of the computation: "off" (float32), "bf16" (autocast to bfloat16), "fp16" (autocast to float16, with
    # scaled gradients) or "auto" (bf16 where the device computes in it, else fp16 on a GPU and off on a CPU).
    cfg.SOLVER.AMP = "off"
    # Let a GPU round the factors of float32 products to 10 bits (TensorFloat-32).
    cfg.SOLVER.TF32 = False
    # Each batch is computed in this many pieces, whose gradients add up: less memory, the same step.
    cfg.SOLVER.ACCUMULATE = 1
    # Spread weights, gradients and optimizer states over the processes of torchrun (FSDP2), for end2end on backbones
    # that are too large for one GPU; otherwise every process holds all of them (DDP).
    cfg.SOLVER.FSDP = False
    # Largest norm of the gradient, 0: no limit.
    cfg.SOLVER.CLIP_GRAD = 0.0

    for name, method in METHODS.items():
        if keys := method.defaults():
            cfg.MODEL[config_name(name)] = keys
    return cfg


def load_cfg(
    config_file: str | Path = "",
    overrides: list[str] | tuple[str, ...] = (),
    check: Check = checks.problems,
    for_vpt: bool = False,
) -> CfgNode:
    """The frozen config of a run: defaults, then the YAML file with its ``_BASE_`` chain, then KEY VALUE pairs.

    Args:
        check: what to check; ``checks.methods`` where there is no data set and no backbone of the zoo.
        for_vpt: these settings were written for VPT or FreqFiT, even if their keys do not show it.

    Raises:
        ConfigError: unknown keys, wrong types or values that cannot work together, all of them in one message.
    """
    problems: list[str] = []
    settings, _ = file_settings(config_file, problems)
    return load_settings([*settings, *pair_settings(overrides, problems)], problems, check, for_vpt=for_vpt)


def load_cfg_text(text: str, overrides: list[str] | tuple[str, ...] = (), check: Check = checks.problems) -> CfgNode:
    """The same from YAML text, a finished run's config, without its warnings."""
    problems: list[str] = []
    saved = [(key, value, "the saved config") for key, value in flatten(yaml.safe_load(text)).items()]
    return load_settings([*saved, *pair_settings(overrides, problems)], problems, check, quiet=True)


def model_cfg(transfer_type: str, keys: dict[str, Any]) -> CfgNode:
    """The frozen config of a ViT in memory: these methods, and keys of ``MODEL`` (``{"LORA": {"RANK": 4}}``).

    Its head starts as timm's ``reset_classifier`` starts one: nobody knows with which optimizer it will be trained.

    Raises:
        ConfigError: as ``load_cfg``.
    """
    settings = {"MODEL.HEAD_INIT": "linear"} | flatten({"MODEL": keys} | {"MODEL.TRANSFER_TYPE": transfer_type})
    return load_settings([(key, value, "the call") for key, value in settings.items()], [], checks.methods, quiet=True)


def load_settings(
    settings: list[Setting],
    problems: list[str],
    check: Check = checks.problems,
    quiet: bool = False,
    for_vpt: bool = False,
) -> CfgNode:
    """Defaults with ``settings`` on top, checked and frozen.

    Args:
        problems: found before.
        quiet: log no notes.
        for_vpt: as in ``load_cfg``.

    Raises:
        ConfigError: as ``load_cfg``.
    """
    cfg, notes = get_cfg(), []
    for_vpt = for_vpt or legacy.for_vpt((key, value) for key, value, _ in settings)
    for key, value, where in settings:
        key, value, note = legacy.translate(key, value)
        if note:
            notes.append(note)
        if key is not None:
            problems += _assign(cfg, key, value, where)
    _resolve(cfg, for_vpt)
    problems = problems or check(cfg)
    if problems:
        raise ConfigError("the config has problems:\n" + "\n".join(f"  - {p}" for p in dict.fromkeys(problems)))
    for note in dict.fromkeys([*notes, *checks.warnings(cfg)] if not quiet and check is checks.problems else []):
        logger.warning("note: %s", note)
    cfg.freeze()
    return cfg


def _resolve(cfg: CfgNode, for_vpt: bool) -> None:
    """Replace "auto" by what it means here, so that whatever is written, hashed or reported says what acts."""
    model, solver = cfg.MODEL, cfg.SOLVER
    if model.HEAD_INIT == "auto":
        model.HEAD_INIT = "vpt" if for_vpt or solver.OPTIMIZER == "sgd" else "zero"


def changed(cfg: CfgNode) -> dict[str, Any]:
    """The keys of ``cfg`` that are not what a run has that does not name them: ``{"SOLVER.BASE_LR": 0.1, ...}``."""
    unnamed = unnamed_values()
    return {key: value for key, value in flatten(cfg).items() if unnamed[key] != value}


def unnamed_values() -> dict[str, Any]:
    """Every key's value in a run whose record does not name it: its default, or what it was before it had one."""
    return _defaults() | legacy.UNNAMED


def _defaults() -> dict[str, Any]:
    return _defaults_with(tuple(METHODS.items()))


@functools.cache
def _defaults_with(methods: tuple) -> dict[str, Any]:
    """Every key's default with these methods in ``METHODS``, to which code may add."""
    return flatten(get_cfg())


def flatten(cfg: dict, prefix: str = "") -> dict[str, Any]:
    """``{"A": {"B": 1}}`` -> ``{"A.B": 1}``, keys in their order. KWARGS is one value: its keys are not ours."""
    flat = {}
    for key, value in cfg.items():
        is_node = isinstance(value, dict) and key != "KWARGS"
        flat |= flatten(value, f"{prefix}{key}.") if is_node else {f"{prefix}{key}": value}
    return flat


def file_settings(
    config_file: str | Path, problems: list[str], section: str = ""
) -> tuple[list[Setting], dict[str, Any]]:
    """What a YAML file with its ``_BASE_`` chain says, and its top-level ``section``, which is no settings."""
    if not config_file:
        return [], {}
    try:
        content = CfgNode.load_yaml_with_base(str(config_file))
    except (OSError, AssertionError, RecursionError, TypeError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{config_file} cannot be read as YAML settings: {error}")
        return [], {}
    if not isinstance(content, dict):
        problems.append(f"{config_file} holds no settings, but {content!r}")
        return [], {}
    taken = content.pop(section, None) or {}
    if "SWEEP" in content:
        del content["SWEEP"]
        problems.append(f"{config_file} describes a sweep: python -m src.tools.tune --config-file {config_file}")
    return [(key, value, str(config_file)) for key, value in flatten(content).items()], taken


def pair_settings(overrides: list[str] | tuple[str, ...], problems: list[str]) -> list[Setting]:
    """KEY VALUE pairs of a command line."""
    if len(overrides) % 2:
        problems.append(f"the command line needs pairs of KEY VALUE, but {overrides[-1]!r} has no value")
    pairs = zip(overrides[::2], overrides[1::2], strict=False)
    return [(key, str(text), "the command line") for key, text in pairs]


def _assign(cfg: CfgNode, key: str, value: Any, where: str) -> list[str]:
    """Set one key, converting ``value`` to the type of its default; what went wrong, if anything."""
    known = _defaults()
    if value is None and any(name.startswith(f"{key}.") for name in known):  # an empty section
        return []
    if key not in known:
        node, _, last = key.rpartition(".")
        if isinstance(known.get(node), dict):  # KWARGS.r 8
            value = _parse(value, {}) if isinstance(value, str) else value
            return _assign(cfg, node, {**_at(cfg, node), last: value}, where)
        return [f"unknown key {key} in {where}{_nearest(key, known)}"]
    default = known[key]
    try:
        value = _convert(value, default)
    except (TypeError, ValueError, SyntaxError, yaml.YAMLError):
        return [f"{key} in {where} is {value!r}; it must be {_describe(default)}"]
    node, _, last = key.rpartition(".")
    _at(cfg, node)[last] = value
    return []


def _at(cfg: CfgNode, key: str) -> CfgNode:
    """The section ``key`` of ``cfg``, "" for all of it."""
    return functools.reduce(lambda node, part: node[part], key.split(".") if key else (), cfg)


def _nearest(key: str, known: dict) -> str:
    by_last = [k for k in known if k.split(".")[-1] == key.split(".")[-1]]
    near = [*by_last, *difflib.get_close_matches(key, known, n=3, cutoff=0.6)]
    if not near:
        ends = {k.split(".")[-1]: k for k in known}
        near = [ends[end] for end in difflib.get_close_matches(key.split(".")[-1], ends, n=3, cutoff=0.6)]
    return f"; did you mean {' or '.join(dict.fromkeys(near[:3]))}?" if near else ""


def _convert(value: Any, default: Any) -> Any:
    """``value`` (from YAML, or text from the command line) as the type of ``default``; None means the default."""
    if isinstance(default, str):
        if value in (None, "None", "null"):
            return default
        if isinstance(value, (list, dict, bool)):
            raise TypeError
        return str(value)
    if isinstance(value, str):
        value = _parse(value, default)
    if value is None:
        return default
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, list) and isinstance(value, tuple):
        return list(value)
    if isinstance(default, dict) and isinstance(value, dict):
        return CfgNode(value)
    if type(value) is not type(default):
        raise TypeError
    return value


def _parse(text: str, default: Any) -> Any:
    """Text from the command line as Python or YAML would read it; "a,b" is a list where one is wanted."""
    try:
        return literal_eval(text.strip())
    except (ValueError, SyntaxError):
        value = yaml.safe_load(text)
    if isinstance(default, list) and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


def _describe(default: Any) -> str:
    if isinstance(default, dict):
        return "arguments and their values, such as {'r': 8}"
    kind = {bool: "True or False", int: "a whole number", float: "a number", list: "a list", str: "text"}[type(default)]
    return f"{kind}, such as {default!r}"
