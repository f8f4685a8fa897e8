"""A tuned model as a plain timm model: the learned weights folded into its ViT, checked, written, reloaded."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ...data.pixels import Pixels
from ...data.resize import TF1
from ...engine.checkpoint import Tuned
from ...engine.evaluator import require_numbers
from ...models.families.unknown import classifiers
from ...models.merge import added_biases, load_merged, merged
from ...models.vit_backbones.build import timm_arguments
from ...models.vit_backbones.epsilon import epsilon_of, with_epsilon
from ...models.vit_models import TunedViT
from ...utils.io import replace_folder, write_atomic, write_json
from .from_files import PHOTO, Code, crop_mode, crop_pct, timm_prepares, with_pillow

FILES = (".safetensors", ".pth", ".pt")
FOLDER = ("config.json", "model.safetensors")  # timm's file names in a model's folder

TOLERANCE = 1e-5  # relative to the largest logit


@dataclass(frozen=True)
class Plain:
    """A merged model for timm: architecture name, arguments that differ from its defaults, and weights.

    ``added`` are biases in ``state`` that timm's network of this name does not have.
    """

    architecture: str
    arguments: dict
    state: dict[str, Tensor]
    added: list[str]
    config: dict  # config.json
    error: float  # largest difference of a logit, relative to the largest logit
    pixels: Pixels


def merge(tuned: Tuned) -> Plain:
    """The plain timm model with the same logits as ``tuned``, whose model is left in double precision.

    Double precision distinguishes rounding, which affects both models, from wrong folding.

    Raises:
        ValueError: a method or the head cannot be folded, or the merged model's logits differ; the message says why.
    """
    model, cfg = tuned.model.double(), tuned.cfg
    if not model.head.is_linear:
        what = (
            f"has {n} hidden layers (MODEL.MLP_NUM)" if (n := cfg.MODEL.MLP_NUM) else "compares directions (zero_shot)"
        )
        raise ValueError(f"the head cannot be merged: it {what}, and timm's is one linear map")
    found = merged(model)
    state = found.state
    architecture, arguments = timm_arguments(cfg.DATA.FEATURE, model.vit, tuned.pixels.size, count_blocks(state))
    plain = timm.create_model(architecture, num_classes=len(tuned.class_names), **arguments).eval()
    head = {name: param.detach() for name, param in model.head.last_layer.named_parameters()}
    if found.shift is not None:
        head["bias"] = head["bias"] + head["weight"] @ found.shift
    state = with_epsilon(state, epsilon_of(model.vit), epsilon_of(plain))
    for classifier in classifiers(plain):  # two in a distilled DeiT, whose mean is this head on the mean of both tokens
        state |= {f"{classifier}.{name}": param for name, param in head.items()}
    state = {name: tensor.float().contiguous() for name, tensor in state.items()}
    added = added_biases(plain, state)
    load_merged(plain, state)
    error = difference(plain.double(), model, tuned.pixels.size)
    if not error <= TOLERANCE:
        raise ValueError(f"{named(model)} cannot be merged: the logits would differ by {error:.1e} of their size")
    return Plain(
        architecture, arguments, state, added, describe(tuned, architecture, arguments, plain), error, tuned.pixels
    )


def named(model: TunedViT) -> str:
    """A model's methods, for messages."""
    return "+".join(model.methods) or "a linear head"


def count_blocks(state: dict[str, Tensor]) -> int:
    """The depth of a timm ViT, 0 for networks whose blocks are in stages."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


@torch.no_grad()
def difference(model: nn.Module, other: nn.Module, size: tuple[int, int]) -> float:
    """The largest difference between two models' logits on random images, relative to the largest logit."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    wanted = other(images)
    require_numbers(wanted.float(), "random images")
    largest = wanted.abs().max().item()
    return (model(images) - wanted).abs().max().item() / (largest or 1.0)


def describe(tuned: Tuned, architecture: str, arguments: dict, plain: nn.Module) -> dict:
    """timm's config.json for ``plain``."""
    pixels = tuned.pixels
    pretrained = {
        "custom_load": False,
        "input_size": [3, *pixels.size],
        "fixed_input_size": plain.pretrained_cfg.get("fixed_input_size", False),
        "interpolation": "bilinear" if pixels.interpolation == TF1 else pixels.interpolation,
        "crop_pct": crop_pct(pixels),
        "crop_mode": crop_mode(pixels),
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "num_classes": len(tuned.class_names),
        "first_conv": plain.pretrained_cfg["first_conv"],
        "classifier": plain.pretrained_cfg["classifier"],
    }
    return {
        "architecture": architecture,
        "num_classes": len(tuned.class_names),
        "num_features": plain.num_features,
        "label_names": tuned.class_names,
        "model_args": arguments,
        "pretrained_cfg": pretrained,
    }


def check_free(out: Path, force: bool, is_file: bool, allowed: Collection[str] = FOLDER) -> None:
    """Raises FileExistsError unless ``out`` may be written.

    Args:
        force: overwrite an earlier export of the same kind: a file, or a folder that contains only ``allowed``.
    """
    if not out.exists():
        return
    if not force:
        raise FileExistsError(f"{out} exists and is not overwritten: choose another place, or add --force")
    if is_file != out.is_file() or (not is_file and (other := {p.name for p in out.iterdir()} - set(allowed))):
        kind = (
            "a file" if out.is_file() else "a folder" if is_file else f"a folder with {', '.join(sorted(other))} in it"
        )
        raise FileExistsError(f"{out} is {kind}, not an earlier model: --force does not overwrite it")


def write(plain: Plain, out: Path) -> None:
    """Write ``out``, a file or a folder depending on its name, completely or not at all."""
    if out.suffix == ".safetensors":
        _write_tensors(plain, out)
    elif out.suffix in FILES:
        write_atomic(out, lambda temporary: torch.save(plain.state, temporary))
    else:
        replace_folder(out, lambda folder: write_folder(plain, folder))


def write_folder(plain: Plain, folder: Path) -> None:
    """Write the files that timm loads as ``local-dir:<folder>`` into an existing folder."""
    write_json(folder / FOLDER[0], plain.config)
    _write_tensors(plain, folder / FOLDER[1])


def _write_tensors(plain: Plain, path: Path) -> None:
    write_atomic(path, lambda temporary: temporary.write_bytes(save(plain.state, {"format": "pt"})))


def how_to_load(plain: Plain, out: Path) -> Code:
    """Python code that loads ``out`` and applies it to an image file."""
    pixels = plain.pixels
    options = dict(interpolation=pixels.interpolation, mean=pixels.mean, std=pixels.std)
    options |= dict(crop_pct=crop_pct(pixels), crop_mode=crop_mode(pixels))
    if plain.added:
        load = _with_biases(plain, out)
        transform = f"timm.data.create_transform({(3, *pixels.size)}, {_keywords(options)})"
    elif out.suffix in FILES:
        arguments = {"num_classes": plain.config["num_classes"], **plain.arguments, "checkpoint_path": str(out)}
        load = [f"model = timm.create_model({plain.architecture!r}, {_keywords(arguments)}).eval()"]
        transform = f"timm.data.create_transform({(3, *pixels.size)}, {_keywords(options)})"
    else:
        load = [f"model = timm.create_model({f'local-dir:{out}'!r}, pretrained=True).eval()"]
        transform = "timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
    if timm_prepares(pixels):
        load = ["import timm", "from PIL import Image", *load, f"transform = {transform}"]
        use = [f'images = transform(Image.open({PHOTO!r}).convert("RGB"))[None]', "logits = model(images)"]
        return Code(load, use)
    made = with_pillow(pixels)
    load = [*dict.fromkeys(["import timm", *made.load, "import torch"]), *load]
    images = "images" if pixels.native else "torch.from_numpy(images)"
    return Code(load, [*made.use, f"logits = model({images})"])


def _with_biases(plain: Plain, out: Path) -> list[str]:
    """Lines that make ``model`` where the weights have biases that timm's network does not."""
    arguments = {"num_classes": plain.config["num_classes"], **plain.arguments}
    path = out if out.suffix in FILES else out / FOLDER[1]
    read = f"load_file({str(path)!r})" if path.suffix == ".safetensors" else f"torch.load({str(path)!r})"
    return [
        *["from safetensors.torch import load_file"] * (path.suffix == ".safetensors"),
        "import torch",
        f"model = timm.create_model({plain.architecture!r}, {_keywords(arguments)}).eval()",
        f"weights = {read}",
        "for name in weights.keys() - model.state_dict().keys():  # biases that timm's network does not have",
        '    layer = model.get_submodule(name.removesuffix(".bias"))',
        "    layer.bias = torch.nn.Parameter(torch.zeros(len(layer.weight)))",
        "for module in model.modules():  # attention that must call its map, and not only read its weight",
        '    if hasattr(module, "qkv_bias_separate"):',
        "        module.qkv_bias_separate = True",
        "model.load_state_dict(weights)",
    ]


def _keywords(arguments: dict) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
