"""A checkpoint of transformers as a backbone."""

import re
from collections.abc import Callable
from pathlib import Path

from ....utils.io import read_json
from ....utils.paths import expand
from ..backbone import Backbone
from ..tensors import StateDict
from .config import Values
from .folder import CONFIG, find_folder, read_tensors, weights_of
from .kinds import KINDS, LARGEST, WITH_TEXT, Kind, Network
from .names import is_encoders
from .pixels import pixels_of
from .place import HUB, PREFIX


def read_checkpoint(name: str) -> Backbone:
    """The backbone ``hf:<folder>`` or ``hf:<organisation>/<name>``; its tensors are not read yet.

    Raises:
        ValueError: it is not there, of another kind, or its files say what cannot be; the message says which.
    """
    place = name.removeprefix(PREFIX)
    folder = find_folder(place)
    values, kind = _config(folder)
    network = kind.network(values)
    mean_std, interpolation = pixels_of(folder, kind.mean_std, kind.interpolation)
    patch = network.arguments["patch_size"]
    rows, cols = (side // patch for side in values.sides("image_size", LARGEST))
    return Backbone(
        network.arch,
        (),
        _converter(network),
        "" if folder == Path(expand(place)) else f"{HUB}{place}",
        _licence(folder),
        mean_std,
        interpolation,
        network.pool,
        resize="bicubic",
        arguments=network.arguments,
        norm_of_all=network.norm_of_all,
        epsilon=values.number("layer_norm_eps", 0, 1),
        grid=(rows, cols),
    )


def find_tensors(name: str) -> Path:
    """The file with the tensors of ``hf:<...>``; raises as ``find_folder`` and ``weights_of``."""
    return weights_of(find_folder(name.removeprefix(PREFIX)))


def _config(folder: Path) -> tuple[Values, Kind]:
    """config.json, or what it says of the image tower, and its kind."""
    path = folder / CONFIG
    content = read_json(path)
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if isinstance(model_type, str) and model_type in WITH_TEXT:
        content, model_type = content.get("vision_config", {}), WITH_TEXT[model_type]
    if not isinstance(model_type, str) or model_type not in KINDS:
        known = ", ".join([*WITH_TEXT, *KINDS])
        also = ": its images have no fixed size; timm has it as NaFlexViT" if model_type == "siglip2" else ""
        raise ValueError(f"{path}: model_type is {model_type!r}, which is not read here{also}; known: {known}")
    return Values(path, content, KINDS[model_type].defaults), KINDS[model_type]


def _converter(network: Network) -> Callable[[Path], StateDict]:
    def transformers(path: Path) -> StateDict:
        return network.convert(read_tensors(path, is_encoders))

    return transformers


def _licence(folder: Path) -> str:
    """The licence that the model card beside the weights states; "" without one."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    with card.open(encoding="utf-8", errors="replace") as file:
        start = file.read(10_000)
    front = start.split("\n---")[0] if start.startswith("---") else ""
    stated = re.search(r"^license: *['\"]?([\w.-]+)['\"]? *$", front, re.MULTILINE)
    return stated[1] if stated else ""
