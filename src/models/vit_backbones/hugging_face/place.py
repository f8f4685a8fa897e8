"""Names of transformers checkpoints in DATA.FEATURE: ``hf:<folder>`` or ``hf:<organisation>/<name>``. Without torch."""

import re
from pathlib import Path

PREFIX = "hf:"
HUB = "https://huggingface.co/"
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of a model on the Hugging Face Hub


def is_checkpoint(name: str) -> bool:
    """Whether a DATA.FEATURE names a checkpoint of transformers."""
    return name.startswith(PREFIX)


def label(name: str) -> str:
    """A DATA.FEATURE for people and file names: of a folder the last part alone, ``hf:/data/vit/`` -> ``hf:vit``."""
    place = name.removeprefix(PREFIX)
    if not is_checkpoint(name) or HUB_NAME.fullmatch(place):
        return name
    return PREFIX + Path(place).absolute().name
