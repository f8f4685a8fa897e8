"""Where the files of a checkpoint are: a folder, or the local cache of the Hugging Face Hub. Nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....utils.io import read_json
from ....utils.paths import expand
from ..tensors import StateDict, read_state
from .place import HUB_NAME

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def find_folder(place: str) -> Path:
    """The folder of ``hf:<place>``: one on this disk, or what the cache of the Hub has of ``<organisation>/<name>``.

    Raises:
        ValueError: it is in neither place, or holds no config.json.
    """
    folder = Path(expand(place))
    if place and (folder / CONFIG).is_file():
        return folder
    if place and folder.is_dir():
        raise ValueError(f"{folder} holds no {CONFIG}: save a model there by transformers' save_pretrained")
    if HUB_NAME.fullmatch(place) and (cached := in_cache(place)):
        return cached
    on_hub = f", and the local cache of the Hugging Face Hub does not have it: `hf download {place}` fetches it where "
    on_hub += "there is a network"
    raise ValueError(
        f"there is no folder {place!r}{on_hub if HUB_NAME.fullmatch(place) else ''}. hf:<folder> is a folder with "
        "config.json and model.safetensors, as save_pretrained of transformers writes it"
    )


def in_cache(name: str) -> Path | None:
    """The folder in which the local cache of the Hub keeps the model ``name``; None if it does not."""
    from huggingface_hub import try_to_load_from_cache  # late: only those who use the Hub's names wait for it
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, CONFIG)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def weights_of(folder: Path) -> Path:
    """The file with a checkpoint's tensors, or the index of the files that share them.

    Raises:
        FileNotFoundError: it is missing, or one of the files in the index.
        ValueError: the index is broken.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has no weights: {WEIGHTS[0]} is missing, or one of {', '.join(WEIGHTS[1:])}")
    for shard in files_of(path):
        if not shard.is_file():
            raise FileNotFoundError(f"{shard} is missing, which {path.name} names")
    return path


def files_of(path: Path) -> list[Path]:
    """The files with the tensors of ``path``: itself, or those that it names if it is an index."""
    if path.suffix != ".json":
        return [path]
    index = read_json(path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards or not all(map(_is_file_name, shards.values())):
        raise ValueError(f"{path} is no index of weights: its weight_map must give each tensor a file in that folder")
    return [path.parent / name for name in sorted(set(shards.values()))]


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def read_tensors(path: Path, keep: Callable[[str], bool]) -> StateDict:
    """The tensors of a file, or of the files in an index, whose names ``keep`` accepts.

    Raises:
        As ``read_content``.
    """
    state: StateDict = {}
    for file in files_of(path):
        state |= read_state(file, "state_dict", keep=keep)
    return state
