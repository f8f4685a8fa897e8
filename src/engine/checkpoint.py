"""What a run writes to be used again (tuned.safetensors) and to go on where it stopped (last.ckpt)."""

import copy
import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import simplejson
import torch
import yaml
from fvcore.common.config import CfgNode
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.amp import GradScaler

from ..configs import checks
from ..configs.config import load_cfg_text
from ..data.pixels import Pixels, pixels_from
from ..models.method import THIS_FILE
from ..models.pooling import set_pool
from ..models.vit_models import TunedViT, build_model, config_name, parse
from ..utils import distributed
from ..utils.io import write_atomic
from ..utils.seed import random_state, set_random_state

FORMAT = "vitune 1"


class CheckpointError(ValueError):
    """A file that is no checkpoint of ours, or does not belong to the backbone that is there."""


@dataclass(frozen=True)
class Tuned:
    """A tuned model read back, in eval mode, with what is needed to use it; no ``pixels`` where no run saved it."""

    model: TunedViT
    cfg: CfgNode
    class_names: list[str]
    pixels: Pixels | None  # how an image file becomes an input


def save_tuned(path: Path, model: TunedViT, cfg: CfgNode, class_names: list[str], pixels: Pixels | None = None) -> None:
    """Write methods, head and unfrozen weights, with the config, class names and pixel pipeline as metadata.

    Called by all processes together; the first one writes.
    """
    tuned = distributed.whole(model.tuned_state_dict())
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tuned.items()}
    metadata = {
        "format": FORMAT,
        "config": cfg.dump(),
        "class_names": simplejson.dumps(class_names),
        "pixels": simplejson.dumps(asdict(pixels) if pixels else None),
        "backbone": fingerprint(model),
        "without_files": simplejson.dumps(_without_files(model)),
    }
    if distributed.is_first():
        write_atomic(path, lambda temporary: temporary.write_bytes(save(state, metadata)))


def load_tuned(path: str | Path, changes: Sequence[str] = (), vit: nn.Module | None = None) -> Tuned:
    """Read a run's folder or its tuned.safetensors back; the model gives the very logits it gave when it was saved.

        tuned = load_tuned("output/.../lr0.1_wd0.01_seed42_1a2b3c4d")
        images = torch.stack([tuned.pixels.input(Path(name).read_bytes()) for name in files])  # (B, 3, H, W)
        logits = tuned.model(images)  # (B, C), classes in the order of tuned.class_names

    Args:
        changes: KEY VALUE pairs to use instead of the run's, such as MODEL.MODEL_ROOT and the folder in which the
            backbone's weights are now.
        vit: put what was learned on a copy of this timm ViT, instead of the backbone that the file names.

    Raises:
        FileNotFoundError: the file or the backbone's weights are missing.
        CheckpointError: the file is not ours, or the backbone's weights are not those that were tuned.
    """
    path = Path(path)
    path = path / "tuned.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a finished run's folder, or its tuned.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no dict
    except SafetensorError as error:
        raise CheckpointError(f"{path} is broken, or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no file that ViTune wrote (format {metadata.get('format')!r})")
    check = checks.problems if vit is None else checks.methods
    if vit is None and not yaml.safe_load(metadata["config"])["DATA"]["FEATURE"]:
        raise CheckpointError(f"{path} belongs to a ViT that was in memory: src.api.load(path, vit) puts it on one")
    cfg = load_cfg_text(metadata["config"], changes, check)
    class_names = simplejson.loads(metadata["class_names"])
    # What a method started from is not needed again: this file holds what became of it.
    instead = simplejson.loads(metadata.get("without_files", '{"MODEL.SIDE.WEIGHTS": ""}'))
    pairs = [text for key, value in instead.items() for text in (key, str(path) if value == THIS_FILE else str(value))]
    whole = load_cfg_text(cfg.dump(), pairs, check)
    head = {name.removeprefix("head."): tensor for name, tensor in state.items() if name.startswith("head.")}
    if vit is not None:
        methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
        vit = copy.deepcopy(vit)
        set_pool(vit, whole.MODEL.POOL, norm_of_all=True)
        model = TunedViT(vit, methods, whole.MODEL, len(class_names), head)
    else:
        model = build_model(whole, len(class_names), head=head)
    model.load_tuned_state_dict(state)
    if fingerprint(model) != metadata["backbone"]:
        what = f"those in {cfg.MODEL.MODEL_ROOT}" if vit is None else "this ViT's"
        raise CheckpointError(
            f"{path} was tuned on other weights of {cfg.DATA.FEATURE or 'a ViT'} than {what}: with these it would give "
            "wrong answers"
        )
    if pixels := simplejson.loads(metadata["pixels"]):  # ``changes`` may say how files are read
        pixels = pixels_from(pixels | {"white": cfg.DATA.WHITE, "max_pixels": cfg.DATA.MAX_PIXELS})
    return Tuned(model.eval(), cfg, class_names, pixels)


def _without_files(model: TunedViT) -> dict:
    """Config keys that name files, and their values for reading the model back without those files."""
    return {
        f"MODEL.{config_name(name)}.{key}": value
        for name, method in model.methods.items()
        for key, value in method.without_files.items()
    }


def fingerprint(model: TunedViT) -> str:
    """A hash of the ViT's frozen weights, the part of the model that tuned.safetensors does not hold."""
    trained = {name for name, param in model.vit.named_parameters() if param.requires_grad}
    return hash_of_frozen(model, {name for name in model.vit.state_dict() if name not in trained})


def hash_of_frozen(model: TunedViT, names: set[str]) -> str:
    """A hash of those of the ViT's weights, none of which trains."""
    return model.once(
        ("hash", frozenset(names)), lambda: hash_of({n: t for n, t in model.vit.state_dict().items() if n in names})
    )


def hash_of(tensors: dict[str, torch.Tensor]) -> str:
    """A hash of names and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(distributed.whole(tensor.detach()).cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def save_last(
    path: Path, model: TunedViT, optimizer: torch.optim.Optimizer, scaler: GradScaler, progress: dict
) -> None:
    """Write all that the next step depends on; ``progress`` is the trainer's own (numbers, strings, tensors).

    Called by all processes together; the first one writes.
    """
    content = {
        "model": model.tuned_state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": distributed.gather(random_state()),
        "progress": progress,
    }
    content = distributed.whole(content)
    if distributed.is_first():
        buffer = io.BytesIO()  # torch.save to a file that cannot grow any more raises an obscure RuntimeError
        torch.save(content, buffer)
        write_atomic(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_last(path: Path, model: TunedViT, optimizer: torch.optim.Optimizer, scaler: GradScaler) -> dict:
    """Put model, optimizer and random generators back; the trainer's ``progress``.

    Raises:
        CheckpointError: the file is broken or of another model.
    """
    try:  # on the CPU: load_state_dict moves what belongs on a device
        content = torch.load(path, map_location="cpu", weights_only=True)
        parts = [content[name] for name in ("model", "optimizer", "scaler", "random", "progress")]
    except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is broken: remove it to start this run again") from error
    tuned, steps, scale, random, progress = parts
    try:
        put_back(model, tuned)
    except ValueError as error:
        raise CheckpointError(f"{path} is of another model: {error}") from error
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for i, state in steps["state"].items():
        steps["state"][i] = {name: distributed.spread(value, params[i]) for name, value in state.items()}
    optimizer.load_state_dict(steps)
    if scale and scaler.is_enabled():
        scaler.load_state_dict(scale)
    if len(random) == distributed.count():  # otherwise each goes on with what SEED gave it
        set_random_state(random[distributed.rank()])
    return progress


def copy_of_tuned(model: TunedViT) -> dict[str, torch.Tensor]:
    """What was learned so far, as tensors of their own."""
    return {name: tensor.detach().clone() for name, tensor in distributed.whole(model.tuned_state_dict()).items()}


def put_back(model: TunedViT, state: dict[str, torch.Tensor]) -> None:
    """What ``copy_of_tuned`` gave, whether or not the model is spread over processes.

    Raises:
        ValueError: keys or shapes that do not fit this model.
    """
    own = model.tuned_state_dict()
    model.load_tuned_state_dict({k: distributed.spread(v, own[k]) if k in own else v for k, v in state.items()})


def learned_size(model: nn.Module) -> int:
    """Bytes of ``tuned_state_dict``: what one more task costs on disk."""
    return sum(tensor.nbytes for tensor in model.tuned_state_dict().values())
