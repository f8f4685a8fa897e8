"""Adapters on disk, as peft saves them: adapter_config.json and adapter_model.safetensors."""

import logging
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ...utils.io import read_json
from ..vit_backbones.tensors import read_state, reading
from .catalogue import BOOKKEEPING, argument_problems, find_tuner, tuners

logger = logging.getLogger(__name__)


def read_adapter(folder: Path) -> tuple[str, dict[str, Any]]:
    """The tuner in adapter_config.json, and its arguments that differ from the tuner's defaults.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it names a tuner, or arguments, that do not work here.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        inside = ", ".join(str(other.parent) for other in folder.glob("*/adapter_config.json"))
        raise FileNotFoundError(f"{path} is missing" + (f"; there is one in {inside}" if inside else ""))
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is broken: it holds {type(content).__name__} instead of settings")
    kind = find_tuner(str(content.get("peft_type")))
    defaults = {
        field.name: field.default_factory() if field.default is MISSING else field.default
        for field in fields(tuners()[kind])
        if not (field.default is MISSING and field.default_factory is MISSING)
    }
    if unknown := sorted(content.keys() - defaults.keys()):
        logger.warning("note: %s has %s, which this version of peft does not know", path, ", ".join(unknown))
    arguments = {
        name: value
        for name, value in content.items()
        if name in defaults and name not in BOOKKEEPING and value != defaults[name]
    }
    if problems := argument_problems(kind, arguments):
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return kind, arguments


def read_weights(folder: Path, modules: list[str]) -> dict[str, Tensor]:
    """What the adapter learned, by timm's names, without the prefix that its file gives them.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: they cannot be read without running code, or hold NaN or infinity.
    """
    names = ("adapter_model.safetensors", "adapter_model.bin")
    if not (path := next((folder / name for name in names if (folder / name).is_file()), None)):
        raise FileNotFoundError(f"{folder / names[0]} is missing")
    with reading(path, "peft"):
        state = read_state(path)
    if broken := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{path} is broken: {broken[0]} holds NaN or infinity")
    for name in state:
        for module in modules:
            if (start := f".{name}".find(f".{module}.")) >= 0:
                return {other.removeprefix(name[:start]): tensor for other, tensor in state.items()}
    return state
