"""From an image file to the input of a ViT: decoder, resize, mean and standard deviation.

Published numbers differ more by their pixels than by their methods. So a pipeline has a name (``DATA.PIXELS``), every
part of it a key, and every result records it.
"""

import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor

from ..configs.facts import image_size
from ..models.patches import PLACE, grid_of, pack
from ..models.vit_backbones.backbone import HALF, IMAGENET, OPENAI
from ..models.vit_backbones.build import native_patch
from ..models.vit_backbones.zoo import input_config
from .decode import MAX_PIXELS, decode
from .presets import NATIVE, PROTOCOLS, RANDOM, TF1, explicit_parts, varies
from .resize import planes, resize
from .sources.base import RawImage

LONGEST = 100  # times the wanted side: anything longer is cropped before the image is enlarged

NORMALIZE = {
    "imagenet": IMAGENET,
    "inception": HALF,
    "clip": OPENAI,
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

_TENSORFLOW = dict(decoder="tf", interpolation=TF1, antialias=False, normalize="imagenet")
_PILLOW = dict(decoder="pil", interpolation="bilinear", antialias=True, normalize="imagenet")

# DATA.PIXELS -> settings for every protocol, and exceptions for some.
PRESETS: dict[str, tuple[dict, dict[str, dict]]] = {
    # VPT and FreqFiT read VTAB-1k with TensorFlow 1's functions, everything else with Pillow.
    "vpt": (_PILLOW, {"vtab": _TENSORFLOW, "clevr": _TENSORFLOW}),
    # NOAH, SPT and others on the shared folders. They squash all other images to 256 x 256 before cropping.
    "noah": (
        _PILLOW | dict(interpolation="bicubic"),
        {"fgvc": dict(resize="squash_crop"), "fewshot": dict(resize="squash_crop")},
    ),
    # The unifying study: raw pixels in [0, 1] on VTAB-1k, the backbone's mean and deviation elsewhere.
    "study": (
        _PILLOW | dict(interpolation="bicubic", normalize="backbone"),
        {"vtab": dict(normalize="none"), "clevr": _TENSORFLOW, "fewshot": dict(resize="squash_crop")},
    ),
    # What the weights were pre-trained with.
    "backbone": (_PILLOW | dict(interpolation="backbone", normalize="backbone"), {}),
}


@dataclass(frozen=True)
class Pixels:
    """How files become inputs; recorded in every result.

    Attributes:
        size: height and width of the input. With ``resize`` "native", how many patches are an image's at most: as many
            as cover this.
        augment: geometry in training: "none", "flip", "crop_flip" (a random crop of an image resized to 8/7 of the
            size, or with ``resize`` "native" of 7/8 of its rows and columns of patches, and a flip), "rrc_flip" (a
            random part of the whole image, resized, and a flip), "rrc_flips" (flips upside down as well).
        mean, std: per RGB channel, of values in [0, 1].
        preset: the DATA.PIXELS that the rest comes from, unless other keys override it.
        decoder: for JPEG files: "tf" (TensorFlow's default, the fast inverse DCT) or "pil" (Pillow, the accurate one).
        white: the white level of files with more than 8 bits per channel; 0: 65,535 for integers, 1 for floats.
        max_pixels: height times width of the largest image that is decoded.
        jpeg_quality: re-encode every image as JPEG with this quality first; 0: never.
        resize: in evaluation: "squash" (to the size), "crop" (the shorter side to 8/7 of the size, then the centre),
            "squash_crop" (to 8/7 of the size, then the centre) or "native" (in proportion, see ``shape``).
        enlarged: that 8/7 of height and width, rounded down: 256 for 224, 438 for 384, 512 for 448, as in VPT and timm;
            "crop" uses the smaller of the two. The size itself for "squash".
        interpolation: "bilinear", "bicubic" or "bilinear_tf1"; resize.py defines them.
        antialias: True as in Pillow; False reads only the nearest pixels, as TensorFlow does by default.
        dtype: of resized pixels: "uint8", or "float32" (not rounded).
        auto_augment, color_jitter, random_erasing, mixup, cutmix: more augmentation in training; see augment.py.
        patch: with ``resize`` "native", height and width of a patch.
    """

    size: tuple[int, int]
    augment: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preset: str = "vpt"
    decoder: str = "pil"
    white: float = 0.0
    max_pixels: int = MAX_PIXELS
    jpeg_quality: int = 0
    resize: str = "squash"
    enlarged: tuple[int, int] = ()
    interpolation: str = "bilinear"
    antialias: bool = False
    dtype: str = "uint8"
    auto_augment: str = ""
    color_jitter: float = 0.0
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    patch: tuple[int, int] = ()

    def __post_init__(self):
        if not self.enlarged:
            larger = tuple(side * 8 // 7 for side in self.size)
            object.__setattr__(self, "enlarged", self.size if self.resize == "squash" else larger)

    @property
    def native(self) -> bool:
        """Whether every image keeps its aspect ratio; batches are then patches, see models/patches.py."""
        return self.resize == NATIVE

    @property
    def num_patches(self) -> int:
        """N, what an image has at most, with ``resize`` "native"."""
        return math.prod(side // own for side, own in zip(self.size, self.patch, strict=True))

    def shape(self, have: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the input that an image of such a height and width becomes."""
        if not self.native:
            return self.size
        grid = grid_of(have, self.patch, self.num_patches)
        return grid[0] * self.patch[0], grid[1] * self.patch[1]

    @property
    def random(self) -> bool:
        """Whether an image looks different in each epoch."""
        return varies(vars(self))

    @property
    def kept(self) -> str:
        """What training keeps of an image: "input" as in evaluation, "enlarged" to crop from, "whole" as decoded."""
        cropped = "input" if self.native else "enlarged"
        return {"crop_flip": cropped, "rrc_flip": "whole", "rrc_flips": "whole"}.get(self.augment, "input")

    def recipe(self, train: bool) -> dict:
        """Everything that determines the pixels from ``prepare``."""
        names = ("size", "decoder", "white", "max_pixels", "resize", "enlarged", "interpolation", "antialias", "dtype")
        if_set = {name: value for name in ("jpeg_quality", "patch") if (value := getattr(self, name))}
        return {name: getattr(self, name) for name in names} | {"kept": self.kept if train else "input"} | if_set

    def prepare(self, raw: RawImage, train: bool = False) -> Tensor:
        """The part of an image to keep: (3, H, W) in 0..255, of the input's shape unless training crops from more."""
        pixels, kept = decode(raw, self.decoder, self.max_pixels, self.white), self.kept if train else "input"
        if self.jpeg_quality:
            pixels = decode(as_jpeg(pixels, self.jpeg_quality), self.decoder)
        if kept == "whole":
            return planes(pixels)
        if kept == "enlarged":
            return self._enlarge(pixels)
        return self._input(pixels)

    def view(self, kept: Tensor) -> Tensor:
        """What evaluation sees of an image kept for training: (3, *shape)."""
        if self.kept == "enlarged":
            return center_crop(kept, self.size)
        if self.kept == "whole":
            return self._input(kept.permute(1, 2, 0).numpy())
        return kept

    def cropped(self, kept: Tensor) -> tuple[int, int]:
        """Height and width of what "crop_flip" crops from an image (3, H, W)."""
        if not self.native:
            return self.size
        return tuple(max(1, 7 * side // (8 * own)) * own for side, own in zip(kept.shape[1:], self.patch, strict=True))

    def batch(self, images: Sequence[Tensor]) -> Tensor:
        """Images (3, H, W) of the input's shapes in one tensor: (B, 3, H, W), or patches (B, N, W + 3)."""
        if self.native:
            images = [pack(image, self.patch, self.num_patches) for image in images]
        return torch.stack(tuple(images))

    def noise(self, count: int, seed: int = 0) -> Tensor:
        """A batch of noise, as normalised images are; those of a native shape are wide and tall in turn."""
        generator = torch.Generator().manual_seed(seed)
        if not self.native:
            return torch.randn(count, 3, *self.size, generator=generator)
        shapes = [self.shape(((1, 2), (3, 2))[i % 2]) for i in range(count)]
        return self.batch([torch.randn(3, *shape, generator=generator) for shape in shapes])

    def input(self, raw: RawImage) -> Tensor:
        """One image as the model sees it in evaluation: float32 (3, H, W), or patches (N, W + 3). For single images;
        loaders make batches."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return normalise(self.batch([self.prepare(raw)]), mean, std)[0]

    def _input(self, pixels: np.ndarray) -> Tensor:
        if self.resize in ("squash", NATIVE):
            return self._resize(pixels, self.shape(pixels.shape[:2]))
        return center_crop(self._enlarge(pixels), self.size).contiguous()

    def _enlarge(self, pixels: np.ndarray) -> Tensor:
        if self.resize == "squash_crop":
            return self._resize(pixels, self.enlarged)
        pixels = cut_long_sides(pixels, min(self.enlarged), self.size)
        return self._resize(pixels, shorter_side(pixels.shape[:2], min(self.enlarged), self.size))

    def _resize(self, pixels: np.ndarray, size: tuple[int, int]) -> Tensor:
        return resize(pixels, size, self.interpolation, self.antialias, self.dtype)


def build_pixels(cfg: CfgNode, protocol: str) -> Pixels:
    """The pipeline of a config for a task with ``protocol``: the preset, overridden by other keys.

    ``preset`` then names what they changed: "vpt, but decoder and mean".
    """
    plain, pixels = _preset(cfg, protocol), _preset(cfg, protocol, _explicit(cfg.DATA))
    names = [part.name for part in dataclasses.fields(Pixels) if part.name not in ("enlarged", "max_pixels", "patch")]
    changed = [name for name in names if getattr(plain, name) != getattr(pixels, name)]
    if not changed:
        return pixels
    return dataclasses.replace(pixels, preset=f"{pixels.preset}, but {' and '.join(changed)}")


def _explicit(data: CfgNode) -> dict:
    """Parts of the pipeline that keys set explicitly; "" and -1 mean not set."""
    names = (
        "augment",
        "decoder",
        "white",
        "max_pixels",
        "jpeg_quality",
        "resize",
        "interpolation",
        "normalize",
        "dtype",
        *RANDOM,
    )
    settings = explicit_parts(data, names)
    numbers = {"mean": data.MEAN, "std": data.STD}
    settings |= {name: tuple(map(float, values)) for name, values in numbers.items() if values}
    return settings | ({"antialias": data.ANTIALIAS == "always"} if data.ANTIALIAS else {})


def _preset(cfg: CfgNode, protocol: str, explicit: dict | None = None) -> Pixels:
    preset, special = PRESETS[cfg.DATA.PIXELS]
    explicit = explicit or {}
    settings = PROTOCOLS[protocol] | preset | special.get(protocol, {}) | explicit
    if settings["augment"] == "crop_flip" and settings["resize"] == "squash" and "resize" not in explicit:
        settings["resize"] = "crop"
    mean_std, interpolation = input_config(cfg.DATA.FEATURE)
    if settings["interpolation"] == "backbone":
        settings["interpolation"] = interpolation
    if settings["interpolation"] == TF1 and settings["antialias"]:  # mutually exclusive: an explicit one wins
        settings |= {"antialias": False} if explicit.get("interpolation") == TF1 else {"interpolation": "bilinear"}
    if settings.get("auto_augment") == "none":
        settings["auto_augment"] = ""
    mean, std = (NORMALIZE | {"backbone": mean_std})[settings.pop("normalize")]
    if settings["resize"] == NATIVE:
        settings["patch"] = native_patch(cfg.DATA.FEATURE, image_size(cfg))
    return Pixels(**{"size": image_size(cfg), "mean": mean, "std": std, "preset": cfg.DATA.PIXELS} | settings)


def pixels_from(saved: dict) -> Pixels:
    """Restore a pipeline saved as a dictionary, also by versions with fewer parts."""
    names = {field.name for field in dataclasses.fields(Pixels)}
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k in names}
    if "resize" not in settings and settings["augment"] == "crop_flip":
        settings |= dict(resize="crop", antialias=True)
    if "enlarged" not in settings and settings.get("resize") in ("crop", "squash_crop"):
        settings["enlarged"] = tuple(round(side * 8 / 7) for side in settings["size"])  # the rounding of those versions
    return Pixels(**settings)


def as_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """uint8 (H, W, 3) as a JPEG file, with colours at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def shorter_side(have: tuple[int, int], side: int, at_least: tuple[int, int]) -> tuple[int, int]:
    """(H, W) in proportion, with a shorter side of ``side`` pixels, or larger so that both reach ``at_least``.

    The longer side is rounded down, as in torchvision.
    """
    scale = max(side / min(have), at_least[0] / have[0], at_least[1] / have[1])
    wanted = tuple(int(length * scale + 1e-6) for length in have)
    return max(wanted[0], at_least[0]), max(wanted[1], at_least[1])  # max: after rounding


def cut_long_sides(pixels: np.ndarray, side: int, at_least: tuple[int, int]) -> np.ndarray:
    """Crop the ends of a side of (H, W, 3) that ``shorter_side`` would make more than LONGEST times the wanted length.

    A file of 100 bytes may be an image of 100,000 x 1 pixels, which takes gigabytes once its shorter side is 256.
    """
    have = pixels.shape[:2]
    scale = max(side / min(have), at_least[0] / have[0], at_least[1] / have[1])
    keep = [min(n, math.ceil(LONGEST * max(side, least) / scale)) for n, least in zip(have, at_least, strict=True)]
    top, left = ((n - kept) // 2 for n, kept in zip(have, keep, strict=True))
    return pixels[top : have[0] - top, left : have[1] - left]  # the same at both ends: the centre stays


def center_crop(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The centre of (3, H, W)."""
    top, left = (round((have - want) / 2) for have, want in zip(pixels.shape[-2:], size, strict=True))
    return pixels[:, top : top + size[0], left : left + size[1]]


def normalise(batch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..255 -> float32, (x / 255 - mean) / std per channel; mean and std: (3, 1, 1).

    Of patches (B, N, W + 3) those that are padding stay zero.
    """
    if batch.ndim == 3:
        batch = batch.to(torch.float32, copy=True)
        colours = batch[..., :-PLACE].unflatten(-1, (-1, 3))
        colours.mul_(1 / 255).sub_(mean.flatten()).div_(std.flatten()).mul_(batch[..., -1:, None])
        return batch
    return batch.to(torch.float32, copy=True).mul_(1 / 255).sub_(mean).div_(std)
