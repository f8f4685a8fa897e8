"""What a run writes for later use (tuned.safetensors) and to resume (last.ckpt)."""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import simplejson
import torch
from fvcore.common.config import CfgNode
from safetensors.torch import save
from torch import nn
from torch.amp import GradScaler

from ..configs import checks
from ..configs.config import Check, ConfigError, load_cfg_text
from ..data.pixels import Pixels
from ..models.copies import memo_of, sharing_copy
from ..models.memo import Memo
from ..models.method import THIS_FILE
from ..models.pooling import set_pool
from ..models.vit_backbones.build import build_backbone
from ..models.vit_backbones.tensors import UNREADABLE, require_whole
from ..models.vit_models import TunedViT, backbone_arguments, build_model, config_name, parse
from ..utils import distributed
from ..utils.io import write_atomic
from ..utils.memory import AllocatingAtMost, TooMuch
from ..utils.seed import random_state, set_random_state
from .fit_folder import run_of
from .saved import CHECKSUM, FORMAT, CheckpointError, Saved, checksum, read_saved

ROOM = 16  # limit of allocations while a model is built, freed ones included, as a multiple of ViT and learned weights
LEAST_ROOM = 2**28  # bytes
LEAST_TENSORS = 2**12
LARGEST = 2**22  # pixels of an input

PARTS = ("model", "optimizer", "scaler", "random", "progress")  # of last.ckpt

# What building a model from nonsensical settings can raise.
SENSELESS = (RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, AssertionError)


@dataclass(frozen=True)
class Tuned:
    """A tuned model read back, in eval mode, with all that is needed to use it; no ``pixels`` if no run saved it."""

    model: TunedViT
    cfg: CfgNode
    class_names: list[str]
    pixels: Pixels | None  # how an image file becomes an input


def save_tuned(
    path: Path,
    model: TunedViT,
    cfg: CfgNode,
    class_names: list[str],
    pixels: Pixels | None = None,
    memo: Memo | None = None,
) -> None:
    """Write methods, head and unfrozen weights, with the config, class names and pixel pipeline as metadata.

    Called by all processes; rank 0 writes.
    """
    tuned = distributed.whole(model.tuned_state_dict())
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tuned.items()}
    metadata = {
        "format": FORMAT,
        "config": cfg.dump(),
        "class_names": simplejson.dumps(class_names),
        "pixels": simplejson.dumps(asdict(pixels) if pixels else None),
        "backbone": fingerprint(model, memo),
        "without_files": simplejson.dumps(_without_files(model)),
    }
    metadata[CHECKSUM] = checksum(metadata, state)
    if distributed.is_first():
        write_atomic(path, lambda temporary: temporary.write_bytes(save(state, metadata)))


def load_tuned(
    path: str | Path,
    changes: Sequence[str] = (),
    vit: nn.Module | None = None,
    backbone: Callable[[CfgNode], nn.Module] | None = None,
) -> Tuned:
    """Read back a run's folder, or its tuned.safetensors; the model gives exactly the logits it gave when it was saved.

        tuned = load_tuned("output/.../lr0.1_wd0.01_seed42_1a2b3c4d")
        images = torch.stack([tuned.pixels.input(Path(name).read_bytes()) for name in files])  # (B, 3, H, W)
        logits = tuned.model(images)  # (B, C), classes in the order of tuned.class_names

    Args:
        path: a fit's folder stands for its final model.
        changes: KEY VALUE pairs that override the run's, such as MODEL.MODEL_ROOT if the backbone's weights have moved.
        vit: put the learned weights on a copy of this timm ViT instead of the backbone that the file names; the copy
            shares its memory, see models/copies.py.
        backbone: makes the backbone that a config names; otherwise it is read from its file.

    Raises:
        FileNotFoundError: the file or the backbone's weights are missing.
        CheckpointError: the file is not ours, or the backbone's weights are not those that were tuned.
    """
    path = run_of(Path(path))
    path = path / "tuned.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a finished run's folder, or its tuned.safetensors")
    saved = read_saved(path)
    check = checks.problems if vit is None else checks.methods
    cfg = _settings(path, saved, changes, check, in_memory=vit is not None)
    instead = _instead_of_files(path, saved)
    try:
        whole = load_cfg_text(cfg.dump(), instead, check) if instead else cfg
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    model = _build(path, saved, whole, vit, backbone)
    try:
        model.load_tuned_state_dict(saved.state)
    except ValueError as error:
        raise CheckpointError(f"{path} does not match its settings: {error}") from error
    if fingerprint(model) != saved.backbone:
        weights = f"in {cfg.MODEL.MODEL_ROOT}" if vit is None else "of this ViT"
        raise CheckpointError(
            f"{path} was tuned on other weights of {cfg.DATA.FEATURE or 'a ViT'} than those {weights}, with which its "
            "predictions would be wrong"
        )
    pixels = saved.pixels
    if pixels:  # ``changes`` may set how files are read
        pixels = replace(pixels, white=cfg.DATA.WHITE, max_pixels=cfg.DATA.MAX_PIXELS)
    return Tuned(model.eval(), cfg, saved.class_names, pixels)


def _settings(path: Path, saved: Saved, changes: Sequence[str], check: Check, in_memory: bool) -> CfgNode:
    """The config of a file with ``changes``.

    Raises:
        CheckpointError: the file's config is damaged, or the model cannot be read this way.
        ConfigError: the changes have problems.
    """
    damaged = f"{path} is damaged, or was written by another version"
    once = in_memory and not changes  # to read settings takes longer than to read what was learned
    try:
        own = load_cfg_text(saved.config, check=check if once else checks.nothing)
    except ConfigError as error:
        raise CheckpointError(f"{damaged}: {error}") from error
    if not in_memory and not own.DATA.FEATURE:
        raise CheckpointError(f"{path} belongs to a ViT that was in memory: load it with vitune.load(path, vit)")
    try:
        cfg = own if once else load_cfg_text(saved.config, changes, check)
    except ConfigError as error:
        if changes:
            raise
        raise CheckpointError(f"{damaged}: {error}") from error
    sides = backbone_arguments(own)[2]
    if saved.pixels and saved.pixels.size != sides:
        raise CheckpointError(f"{path} is damaged: its pixels are {saved.pixels.size}, but its settings say {sides}")
    if math.prod(sides) > LARGEST:
        raise CheckpointError(f"{path} is damaged: its settings require images of {sides[0]:,}x{sides[1]:,} pixels")
    return cfg


def _instead_of_files(path: Path, saved: Saved) -> list[str]:
    """KEY VALUE pairs that replace files which methods started from: this file holds what became of them."""
    pairs = saved.without_files.items()
    return [text for key, value in pairs for text in (key, str(path) if value == THIS_FILE else str(value))]


def _build(
    path: Path, saved: Saved, cfg: CfgNode, vit: nn.Module | None, backbone: Callable[[CfgNode], nn.Module] | None
) -> TunedViT:
    """The model described by ``cfg``, within the limits of what the saved one can be.

    Raises:
        CheckpointError: its settings do not make a model, or make one far larger than the learned weights.
    """
    own, classes = cfg.MODEL, len(saved.class_names)
    if vit is not None:
        frozen = sharing_copy(vit)
    else:
        frozen = backbone(cfg) if backbone else build_backbone(*backbone_arguments(cfg))
    tensors = [*saved.state.values(), *frozen.state_dict().values()]
    room = ROOM * sum(tensor.nbytes for tensor in tensors) + LEAST_ROOM
    try:
        with AllocatingAtMost(room, ROOM * len(tensors) + LEAST_TENSORS):
            if vit is None:
                return build_model(cfg, classes, lambda *_: frozen, saved.head)
            set_pool(frozen, own.POOL, norm_of_all=True)
            return TunedViT(frozen, parse(own.TRANSFER_TYPE, cfg.FREQFIT), own, classes, saved.head)
    except TooMuch as error:
        raise CheckpointError(f"{path}: its settings describe a model far larger than the file's content") from error
    except (ValueError, *SENSELESS) as error:
        raise CheckpointError(f"{path}: no model can be built from its settings: {error}") from error


def _without_files(model: TunedViT) -> dict:
    """Config keys that name files, with values for reading the model back without those files."""
    return {
        f"MODEL.{config_name(name)}.{key}": value
        for name, method in model.methods.items()
        for key, value in method.without_files.items()
    }


def fingerprint(model: TunedViT, memo: Memo | None = None) -> str:
    """A hash of the ViT's frozen weights, the part of the model that is not in tuned.safetensors."""
    trained = {name for name, param in model.vit.named_parameters() if param.requires_grad}
    return hash_of_frozen(model, {name for name in model.vit.state_dict() if name not in trained}, memo)


def hash_of_frozen(model: TunedViT, names: set[str], memo: Memo | None = None) -> str:
    """A hash of these weights of the ViT, which must all be frozen; computed once for models that share them."""
    key = ("hash", frozenset(names))

    def compute() -> str:
        return hash_of({name: tensor for name, tensor in model.vit.state_dict().items() if name in names})

    return (memo or Memo()).fact(key, lambda: memo_of(model.vit, names).fact(key, compute))


def hash_of(tensors: dict[str, torch.Tensor]) -> str:
    """A hash of names and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        own = distributed.whole(tensor.detach()).to("cpu", copy=True)  # NumPy would end the sharing of its memory
        digest.update(own.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def save_last(
    path: Path, model: TunedViT, optimizer: torch.optim.Optimizer, scaler: GradScaler, progress: dict
) -> None:
    """Write everything that the next step depends on; ``progress`` is the trainer's (numbers, strings, tensors).

    Called by all processes; rank 0 writes.
    """
    content = {
        "model": model.tuned_state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": distributed.gather(random_state(next(model.parameters()).device)),
        "progress": progress,
    }
    content = distributed.whole(content)
    if distributed.is_first():
        buffer = io.BytesIO()  # torch.save to a full disk raises an obscure RuntimeError
        torch.save(content, buffer)
        write_atomic(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_last(path: Path, model: TunedViT, optimizer: torch.optim.Optimizer, scaler: GradScaler) -> dict:
    """Restore model, optimizer and random generators; returns the trainer's ``progress``.

    Raises:
        CheckpointError: the file is broken or belongs to another model.
    """
    try:  # on the CPU: load_state_dict moves tensors to their device
        require_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        tuned, steps, scale, random, progress = (content[name] for name in PARTS)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} is broken: remove it to restart this run") from error
    try:
        put_back(model, tuned)
        params = [param for group in optimizer.param_groups for param in group["params"]]
        for i, state in steps["state"].items():
            steps["state"][i] = {name: distributed.spread(value, params[i]) for name, value in state.items()}
        optimizer.load_state_dict(steps)
        if scale and scaler.is_enabled():
            scaler.load_state_dict(scale)
        if len(random) == distributed.count():  # otherwise each process keeps the state that SEED gave it
            set_random_state(random[distributed.rank()], next(model.parameters()).device)
    except (ValueError, *SENSELESS) as error:
        raise CheckpointError(f"{path} belongs to another model, or is damaged: {error}") from error
    return progress


def copy_of_tuned(model: TunedViT) -> dict[str, torch.Tensor]:
    """A copy of the weights learned so far."""
    return {name: tensor.detach().clone() for name, tensor in distributed.whole(model.tuned_state_dict()).items()}


def put_back(model: TunedViT, state: dict[str, torch.Tensor]) -> None:
    """Restore the weights from ``copy_of_tuned``, also if the model is sharded over processes.

    Raises:
        ValueError: keys or shapes do not fit this model.
    """
    own = model.tuned_state_dict()
    model.load_tuned_state_dict({k: distributed.spread(v, own[k]) if k in own else v for k, v in state.items()})


def learned_size(model: nn.Module) -> int:
    """Bytes of ``tuned_state_dict``: the disk space of one more task."""
    return sum(tensor.nbytes for tensor in model.tuned_state_dict().values())
