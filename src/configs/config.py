"""Every config key but the methods' own, which each method declares (``defaults`` in src/models/methods/*.py).

The names are VPT's and FreqFiT's, so that YAML files and command lines written for them run here; what became of keys
that no longer mean anything is in legacy.py, what types cannot say in checks.py.
"""

import difflib
import functools
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from ..models.method import Method
from ..models.vit_models import METHODS, config_name, parse, suited_lr
from ..utils.paths import expand
from ..utils.yaml import lines_of, read_value, read_yaml, safe_load
from . import checks, legacy

logger = logging.getLogger(__name__)

Check = Callable[[CfgNode], list[str]]  # a config -> what is wrong with it, one sentence each
Setting = tuple[str, Any, str]  # key, value, and where it was said

FILES = 100  # that a file may be based on, directly or not

# Keys that name a file or a folder, by their last part: "~" in them is the home folder.
PATHS = {
    "OUTPUT_DIR", "MLFLOW", "DATAPATH", "TRAIN_LIST", "VAL_LIST", "TEST_LIST", "CACHE_DIR", "MODEL_ROOT",
    "WEIGHT_PATH", "HEAD_TEMPLATES", "HEAD_CLASS_NAMES", "WEIGHTS", "ALLOCATION", "LOAD",
}  # fmt: skip

# What else is read as True and False where a key takes one of these (YAML 1.1).
WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


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
    # Leave out the last, incomplete batch of a training epoch: other images in every epoch.
    cfg.DATA.DROP_LAST = False
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
    # Fraction of the images that becomes test where class folders come without train/ and test/; stratified, always the
    # same. VAL_FRACTION is then of what is left.
    cfg.DATA.TEST_FRACTION = 0.2
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
    # size); "rrc_flip" (random resized crop); "rrc_flips" (also upside down). "": the task's own choice. "auto":
    # "crop_flip", but "none" where the head alone trains: what the network makes of an image is then computed once.
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
    # What of a ViT's tokens the head gets: "token" (the class token), "avg" (the average of the patches, prompts left
    # out), "": as the backbone was pre-trained. Only what its weights have a norm for.
    cfg.MODEL.POOL = ""
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
    # "sgd", "adam" (L2 in the gradient), "adamw" (decoupled weight decay), or, for the head alone on images that look
    # the same every time, "lbfgs": a logistic regression whose penalty is chosen on val, without epochs, learning rate
    # or decay. "auto": "lbfgs" where it can be, else "adamw".
    cfg.SOLVER.OPTIMIZER = "sgd"
    # What adam and adamw add to the root of the second moment; 0: 1e-8 for adam, 1e-6 for adamw (VPT's).
    cfg.SOLVER.EPS = 0.0
    # The highest learning rate, used as it is: not scaled by the batch size. -1, with adamw: the one that suits the
    # methods (``adamw_lr`` in src/models/methods), 0.03 for the head alone.
    cfg.SOLVER.BASE_LR = 0.01
    # Weight decay of what SOLVER.DECAY names.
    cfg.SOLVER.WEIGHT_DECAY = 0.0001
    # What decays: "vpt" (all that trains but the head's last bias; with adamw, but every bias), "timm" (all but what
    # has one dimension and the backbone's own exceptions), "all", "none". "auto": "vpt"; but with adamw, what ssf, rlrr
    # and spt_* train decays as in their original code, unless the settings are written for VPT or FreqFiT. A run's
    # config.yaml says "vpt" where it comes to that, its wiring.txt and result.json who decays.
    cfg.SOLVER.DECAY = "auto"
    # Layer-wise learning rates, for full fine-tuning (end2end): each layer of the ViT learns so many times as fast as
    # the next one, the head with BASE_LR; 1: all alike. As timm's param_groups_layer_decay.
    cfg.SOLVER.LAYER_DECAY = 1.0
    # Learning rate of biases, the head's last excepted, as a multiple of the others'.
    cfg.SOLVER.BIAS_MULTIPLIER = 1.0
    # Momentum of sgd.
    cfg.SOLVER.MOMENTUM = 0.9
    # "cosine": linear warm-up, then half a cosine to MIN_LR; "timm": the same, but the cosine begins with the run, and
    # the warm-up takes the place of its first part (timm's CosineLRScheduler); "constant": warm-up, then BASE_LR.
    cfg.SOLVER.SCHEDULER = "cosine"
    # When the learning rate changes: "epoch" (VPT: the first warm-up epoch has learning rate WARMUP_LR) or "step".
    cfg.SOLVER.SCHEDULE_PER = "epoch"
    # Each epoch has the learning rate of the one before, the first two the first one's: what becomes of a timm
    # scheduler that is stepped after an epoch with that epoch's number (NOAH, FacT, Convpass, RepAdapter, RLRR, SPT).
    cfg.SOLVER.SCHEDULE_LATE = False
    # Where the warm-up starts.
    cfg.SOLVER.WARMUP_LR = 0.0
    # Where the cosine ends.
    cfg.SOLVER.MIN_LR = 0.0
    # Epochs of warm-up.
    cfg.SOLVER.WARMUP_EPOCH = 5
    # The same in steps, instead; 0: WARMUP_EPOCH. The learning rate then changes per step, as for MAX_STEPS, and both
    # count steps from 0, as Hugging Face's get_cosine_schedule_with_warmup does.
    cfg.SOLVER.WARMUP_STEPS = 0
    # Epochs in all, warm-up included.
    cfg.SOLVER.TOTAL_EPOCH = 30
    # Steps in all, instead, whatever the last epoch has done by then; 0: TOTAL_EPOCH.
    cfg.SOLVER.MAX_STEPS = 0
    # More epochs than TOTAL_EPOCH where these have fewer steps than this, for small data sets; 0: never; -1: 300, which
    # suit most methods, or 2000 for the head alone, unless TOTAL_EPOCH is set after it, as on a command line.
    cfg.SOLVER.MIN_STEPS = 0
    # More epochs behind TOTAL_EPOCH, with MIN_LR (timm's cooldown).
    cfg.SOLVER.COOLDOWN_EPOCH = 0
    # Stop after this many epochs, on the schedule of all; 0: never.
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
    # Drop-path of the last block's branches, rising from 0 at the first, in training only and on frozen ViTs too, whose
    # dropout stays off; what a method adds within a branch is dropped with it. 0.0: the backbone's own, which acts in
    # end2end, and that of spt_* (VIT_DROP_PATH).
    cfg.SOLVER.DROP_PATH = 0.0
    # Decay per step of an average of all that is learned, such as SSF's 0.9998; 0.0: none. With it validation, test,
    # tuned.safetensors and what is exported have the averaged weights; last.ckpt has both.
    cfg.SOLVER.EMA = 0.0
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
    """The same from YAML text, a finished run's config, without its warnings.

    Raises:
        ConfigError: as ``load_cfg``, and for a text that holds no settings.
    """
    problems: list[str] = []
    try:
        content = safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the saved config cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the saved config holds no settings, but {_shown(content)}")
    saved = [(key, value, "the saved config") for key, value in flatten(content).items()]
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
    if legacy.is_saved(key for key, *_ in settings):
        settings = [*((key, value, "runs before it") for key, value in legacy.UNNAMED.items()), *settings]
    for key, value, where in settings:
        key, value, note = legacy.translate(key, value)
        if note:
            notes.append(note)
        if key is not None:
            problems += _assign(cfg, key, value, where)
    notes += _resolve(cfg, for_vpt, _says_epochs(settings))
    if problems := [*problems, *check(cfg)]:
        raise ConfigError("the config has problems:\n" + "\n".join(f"  - {p}" for p in dict.fromkeys(problems)))
    for note in dict.fromkeys([*notes, *checks.warnings(cfg)] if not quiet and check is checks.problems else []):
        logger.warning("note: %s", note)
    cfg.freeze()
    return cfg


def _says_epochs(settings: list[Setting]) -> bool:
    """Whether TOTAL_EPOCH was said later, and elsewhere, than MIN_STEPS: then that many epochs are wanted."""
    last = {key: (number, where) for number, (key, _, where) in enumerate(settings)}
    epochs, steps = (last.get(f"SOLVER.{name}", (-1, "")) for name in ("TOTAL_EPOCH", "MIN_STEPS"))
    return epochs[0] > steps[0] and epochs[1] != steps[1]


def _resolve(cfg: CfgNode, for_vpt: bool, for_epochs: bool) -> list[str]:
    """Replace "auto" by what it means here, so that whatever is written, hashed or reported says what acts.

    Args:
        for_epochs: TOTAL_EPOCH is meant, however few steps that makes.

    Returns:
        what may surprise of that.
    """
    data, model, solver, notes = cfg.DATA, cfg.MODEL, cfg.SOLVER, []
    if for_epochs:
        solver.MIN_STEPS = 0 if solver.MIN_STEPS == -1 else solver.MIN_STEPS
    try:
        notes += _resolve_by_methods(cfg, parse(model.TRANSFER_TYPE, cfg.FREQFIT))
    except ValueError:  # ``checks`` says why, and need not say more
        solver.OPTIMIZER = "adamw" if solver.OPTIMIZER == "auto" else solver.OPTIMIZER
        if solver.OPTIMIZER == "adamw" and solver.BASE_LR == -1:
            solver.BASE_LR = suited_lr(())
        solver.MIN_STEPS = 0 if solver.MIN_STEPS == -1 else solver.MIN_STEPS
        data.AUGMENT = "" if data.AUGMENT == "auto" else data.AUGMENT
    if model.HEAD_INIT == "auto":
        model.HEAD_INIT = "vpt" if for_vpt or solver.OPTIMIZER == "sgd" else "zero"
    if solver.DECAY == "auto" and (for_vpt or solver.OPTIMIZER != "adamw" or not _has_own_decay(cfg)):
        solver.DECAY = "vpt"
    if solver.MAX_STEPS or solver.WARMUP_STEPS:
        solver.SCHEDULE_PER = "step"
    return notes


def _resolve_by_methods(cfg: CfgNode, methods: dict[str, dict]) -> list[str]:
    """The same for what suits a method: its optimizer and learning rate, how long it trains, what images look like."""
    data, solver, notes = cfg.DATA, cfg.SOLVER, []
    if data.AUGMENT == "auto":
        data.AUGMENT = "crop_flip" if methods else "none"
    if solver.OPTIMIZER == "auto":
        reasons = checks.not_logistic(cfg)
        solver.OPTIMIZER = "adamw" if reasons else "lbfgs"
        if reasons and not methods:
            notes.append(f"the head is trained, not a logistic regression, which has no place for {', '.join(reasons)}")
    if solver.OPTIMIZER == "lbfgs":
        solver.BASE_LR, solver.MIN_STEPS, solver.DECAY = 1.0, 0, "none"
    if solver.BASE_LR == -1 and solver.OPTIMIZER == "adamw":
        solver.BASE_LR = suited_lr(methods)
    if solver.MIN_STEPS == -1:
        solver.MIN_STEPS = 0 if solver.MAX_STEPS else 300 if methods else 2000
    return notes


def _has_own_decay(cfg: CfgNode) -> bool:
    """Whether the original code of one of the methods says what decays."""
    with suppress(ValueError):  # unknown names are for ``checks``
        return any(METHODS[name].decays is not Method.decays for name in parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT))
    return False


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
    """What a YAML file with its ``_BASE_`` chain says, and its top-level ``section``, which is no settings.

    Raises:
        ConfigError: a file cannot be read at all; all that can be put right beside others goes into ``problems``.
    """
    if not config_file:
        return [], {}
    settings: dict[str, Setting] = {}  # of every key the last word
    taken: dict[str, Any] = {}
    for path, content in _chain(Path(_home(config_file)), problems, ()):
        if "SWEEP" in content and section != "SWEEP":
            del content["SWEEP"]
            problems.append(f"{path} describes a sweep: python -m src.tools.tune --config-file {path}")
        if isinstance(part := content.pop(section, None), dict):
            taken = _merged(taken, part)
        elif part is not None:
            problems.append(f"{section} in {path} is {_shown(part)}; it must have keys")
        for key, value in flatten(content).items():
            before = settings.pop(key, (key, None, ""))[1]
            both = isinstance(before, dict) and isinstance(value, dict)
            settings[key] = (key, _merged(before, value) if both else value, str(path))
    return list(settings.values()), taken


def _chain(path: Path, problems: list[str], above: tuple[Path, ...]) -> list[tuple[Path, dict]]:
    """A file's content behind that of the files it is based on.

    Raises:
        ConfigError: one of them cannot be read.
    """
    who = str(path) + (f" (_BASE_ of {above[-1]})" if above else "")
    if path.resolve() in [other.resolve() for other in above]:
        raise _unreadable(f"{' -> '.join(map(str, (*above, path)))}: a file is based on itself")
    try:
        document = read_yaml(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(f"{who} cannot be read as YAML settings: {error}") from error
    if not isinstance(document.content, dict):
        raise _unreadable(f"{who} holds no settings, but {_shown(document.content)}")
    problems += [f"in {path}, {sentence}" for sentence in [*document.twice, *_differently(document.lines)]]
    bases = document.content.pop("_BASE_", None) or []
    bases = bases if isinstance(bases, list) else [bases]
    if not all(isinstance(base, str) for base in bases):
        raise _unreadable(f"_BASE_ in {path} is {_shown(bases)}; it must be a file, or a list of files")
    found = []
    for base in bases:
        found += _chain(path.parent / _home(base), problems, (*above, path))
        if len(found) > FILES:
            raise _unreadable(f"{path} is based on more than {FILES} files")
    return [*found, (path, document.content)]


def _home(path: str | Path) -> str:
    try:
        return expand(str(path))
    except ValueError as error:
        raise _unreadable(str(error)) from error


def _differently(lines: dict[str, list[int]]) -> list[str]:
    """Keys that stand twice because they are written in different ways, or under an old and a new name."""
    places: dict[str, list[int]] = {}
    for key, found in lines.items():
        if not key.startswith("SWEEP.") and ".KWARGS." not in key:  # labels and arguments are no keys
            name = legacy.translate(key, "")[0] or key
            places.setdefault(name, []).extend(found)
    return [f"{key} occurs twice, in {lines_of(found)}" for key, found in places.items() if len(found) > 1]


def _unreadable(problem: str) -> ConfigError:
    return ConfigError(f"the config has problems:\n  - {problem}")


def _merged(old: dict, new: dict) -> dict:
    """``old`` with what ``new`` says on top, section by section; an empty section changes nothing."""
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        if both or value is not None or key not in merged:
            merged[key] = _merged(merged[key], value) if both else value
    return merged


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
    if (value is False or value in ("False", "false")) and "off" in checks.CHOICES.get(key, ()):
        value = "off"
    try:
        value = _convert(value, default)
    except (TypeError, ValueError, yaml.YAMLError) as error:
        why = f" ({error})" if isinstance(error, yaml.YAMLError) else ""
        return [f"{key} in {where} is {_shown(value)}{why}; it must be {_describe(default)}"]
    node, _, last = key.rpartition(".")
    try:
        value = expand(value) if last in PATHS else value
    except ValueError as error:
        return [f"{key} in {where} is {error}"]
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
    if isinstance(default, bool | dict):
        value = _without_words(value)
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
    value = read_value(text)
    if isinstance(default, list) and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


def _without_words(value: Any) -> Any:
    """``value`` with yes, no, on and off as what they mean."""
    if isinstance(value, dict):
        return {key: _without_words(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_words(part) for part in value]
    return WORDS.get(value.lower(), value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    """A value in a message of bearable length."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _describe(default: Any) -> str:
    if isinstance(default, dict):
        return "arguments and their values, such as {'r': 8}"
    kind = {bool: "True or False", int: "a whole number", float: "a number", list: "a list", str: "text"}[type(default)]
    return f"{kind}, such as {default!r}"
