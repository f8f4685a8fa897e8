"""Networks with maps of several sizes: Microsoft's Swin, Meta's ConvNeXt."""

import re
from pathlib import Path

from ..tensors import StateDict, read_state
from .names import drop, strip


def swin(path: Path) -> StateDict:
    """Swin: a stage ends with what makes the map smaller, in timm the next one begins with it."""
    return _swin(read_state(path, "model"))


def moby(path: Path) -> StateDict:
    """Swin from MoBY's self-supervised pre-training: the encoder that learns by gradient, not its average."""
    return _swin(strip(read_state(path, "model"), "encoder.", only=True))


def _swin(state: StateDict) -> StateDict:
    renamed = {}
    for name, tensor in drop(state, "head.", "projector.").items():
        if name.endswith((".attn_mask", ".relative_position_index")):  # computed
            continue
        name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name)
        renamed[name] = tensor
    return renamed


def convnext(path: Path) -> StateDict:
    """ConvNeXt, also DINOv3's, whose final norm is in the file twice."""
    renamed = {}
    for name, tensor in drop(read_state(path, "model"), "head.", "norms.").items():
        name = name.replace("downsample_layers.0.", "stem.")
        name = re.sub(r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample.", name)
        name = re.sub(r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2.", name)
        name = name.replace(".dwconv.", ".conv_dw.").replace(".pwconv", ".mlp.fc")
        renamed[f"head.{name}" if name.startswith("norm.") else name] = tensor
    return renamed
