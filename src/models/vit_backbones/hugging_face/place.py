"""Names of transformers checkpoints in DATA.FEATURE: ``hf:<folder>`` or ``hf:<organisation>/<name>``. Without torch."""

import re
from pathlib import Path

PREFIX = "hf:"
HUB = "https://huggingface.co/"
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of a model on the Hugging Face Hub


def is_checkpoint(name: str) -> bool:
    """Whether a DATA.FEATURE names a checkpoint of transformers."""
    return name.startswith(PREFIX)


def cached() -> list[str]:
    """Every model in the local cache of the Hugging Face Hub that has a config.json, of whatever kind."""
    from huggingface_hub.constants import HF_HUB_CACHE  # late: most who name a backbone do not ask for these

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*"))
    names = (folder.name.removeprefix("models--").replace("--", "/") for folder in folders if _has_config(folder))
    return [PREFIX + name for name in names]


def _has_config(folder: Path) -> bool:
    return any(folder.glob("snapshots/*/config.json"))


def label(name: str) -> str:
    """A DATA.FEATURE for people and file names: of a folder the last part alone, ``hf:/data/vit/`` -> ``hf:vit``."""
    place = name.removeprefix(PREFIX)
    if not is_checkpoint(name) or HUB_NAME.fullmatch(place):
        return name
    return PREFIX + Path(place).absolute().name
