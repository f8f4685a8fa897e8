"""The choices for each part of a pixel pipeline, and the pipeline of each kind of task. Without torch."""

from collections.abc import Iterable, Mapping
from typing import Any

TF1 = "bilinear_tf1"  # TensorFlow 1's resize, see resize.py

DECODERS = ("tf", "pil")  # of JPEG files
NATIVE = "native"  # every image in its own aspect ratio, for networks that take patches of any grid
RESIZES = ("squash", "crop", "squash_crop", NATIVE)
INTERPOLATIONS = ("bilinear", TF1, "bicubic")
DTYPES = ("uint8", "float32")
AUGMENTS = ("none", "flip", "crop_flip", "rrc_flip", "rrc_flips")
AUTO_AUGMENT = ("", "none", "randaugment", "trivialaugment")  # or a timm policy, such as rand-m9-mstd0.5-inc1

# What each kind of task does with images: ``resize`` in evaluation, the rest in training.
PROTOCOLS = {
    "vtab": dict(resize="squash", augment="none"),
    "fgvc": dict(resize="crop", augment="crop_flip"),
    "fewshot": dict(
        resize="crop", augment="rrc_flip", auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.25
    ),  # NOAH's and SPT's
    "manyshot": dict(resize="crop", augment="rrc_flip"),
    "aerial": dict(resize="crop", augment="rrc_flips"),
    "full": dict(resize="squash", augment="rrc_flip"),  # Block Expansion's
    "clevr": dict(resize="squash", augment="none"),
}

WHOLE_BATCH = ("random_erasing", "mixup", "cutmix")  # of RANDOM, those on batches of images of one shape
RANDOM = ("auto_augment", "color_jitter", "random_erasing", "mixup", "cutmix")  # in addition to ``augment``


def varies(parts: Mapping[str, Any]) -> bool:
    """Whether images look different in each epoch with these parts of a pipeline."""
    return parts["augment"] != "none" or any(parts.get(name) not in (None, "", "none", 0) for name in RANDOM)


def explicit_parts(data: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of these parts of a pipeline that the node ``DATA`` sets; "" and -1 mean not set."""
    return {name: value for name in names if (value := data[name.upper()]) not in ("", -1.0)}
