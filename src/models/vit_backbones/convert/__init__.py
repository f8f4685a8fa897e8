"""Published checkpoint files -> state dicts in timm's names. One function per file format; each takes the path.

Every function returns the encoder alone: old heads, projectors, momentum copies and text towers are dropped by name, so
that whatever else does not fit the architecture is reported by the strict load (build.read_fitting).
"""

from .eva02 import eva02
from .hierarchical import convnext, moby, swin
from .image_text import clip, perception, read_clip
from .npz import google, siglip
from .self_supervised import dino, dinov2, dinov3, mae, mae_fresh_norm, moco

__all__ = [
    "clip", "convnext", "dino", "dinov2", "dinov3", "eva02", "google", "mae", "mae_fresh_norm", "moby", "moco",
    "perception", "read_clip", "siglip", "swin",
]  # fmt: skip
