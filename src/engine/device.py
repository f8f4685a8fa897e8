"""The device of a run."""

import os

import torch

from ..utils import distributed


def choose_device(name: str) -> torch.device:
    """``DEVICE``: "auto" is a GPU if there is one; each of several processes gets its own.

    Raises:
        ValueError: a GPU is requested that is not there, or the name is not a device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.expected() > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"DEVICE {name!r} is not a device: use auto, cpu, cuda or cuda:<n>") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"DEVICE {name!r} is not supported: use auto, cpu, cuda or cuda:<n>")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"DEVICE {name!r}: torch sees no GPU; use DEVICE auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        known = ", ".join(f"cuda:{i}" for i in range(count))
        raise ValueError(
            f"DEVICE {name!r}: torch sees {known} only; CUDA_VISIBLE_DEVICES says which of them it may see"
        )
    return device
