"""Training augmentation beyond resizing: crops, flips, torchvision's and timm's policies, mixup and CutMix.

Every random choice depends only on the seed, the epoch and the image, not on other users of random numbers.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as F

from .pixels import Pixels


class Augment:
    """Augment one kept image for training: (3, H, W) in 0..255 -> (3, *shape), on the image's device."""

    def __init__(self, pixels: Pixels):
        self.pixels = pixels
        self.steps = []
        if pixels.kept == "whole":
            self.steps.append(self._random_part)
            self.steps.append(v2.RandomHorizontalFlip())
        if pixels.augment == "rrc_flips":
            self.steps.append(v2.RandomVerticalFlip())
        if pixels.auto_augment:
            self.steps.append(_policy(pixels))
        if strength := pixels.color_jitter:
            self.steps.append(v2.ColorJitter(strength, strength, strength))
        self.erase = v2.RandomErasing(p=pixels.random_erasing, value="random") if pixels.random_erasing else None

    def __call__(self, image: Tensor, draw: Tensor, seed: int) -> Tensor:
        """Args: draw: three numbers in [0, 1) for the crop and the flip; seed: for all other augmentation."""
        if self.pixels.augment == "crop_flip":
            image = random_crop(image, self.pixels.cropped(image), draw)
        if self.pixels.augment in ("flip", "crop_flip") and draw[2] < 0.5:
            image = image.flip(-1)
        if self.steps:
            seed_all(seed)
            image = image.round().byte() if image.is_floating_point() else image  # the policies need uint8
            for step in self.steps:
                image = step(image)
        return image

    def _random_part(self, image: Tensor) -> Tensor:
        """A random part of the whole image, resized: timm's and torchvision's RandomResizedCrop."""
        top, left, height, width = RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        method = InterpolationMode(self.pixels.interpolation.removesuffix("_tf1"))
        size = self.pixels.shape((height, width))
        return F.resized_crop(image, top, left, height, width, size, interpolation=method, antialias=True)

    def erased(self, batch: Tensor, seeds: list[int]) -> Tensor:
        """Apply random erasing to a normalised batch (B, 3, H, W)."""
        if self.erase is None:
            return batch
        for image, seed in zip(batch, seeds, strict=True):
            seed_all(seed + 1)
            image.copy_(self.erase(image))
        return batch


def _policy(pixels: Pixels):
    if pixels.auto_augment == "randaugment":
        return v2.RandAugment(interpolation=InterpolationMode.BILINEAR)
    if pixels.auto_augment == "trivialaugment":
        return v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    grey = tuple(round(255 * value) for value in pixels.mean)
    policy = timm_policy(pixels.auto_augment, translate_const=int(min(pixels.size) * 0.45), img_mean=grey)
    return lambda image: F.pil_to_tensor(policy(F.to_pil_image(image.byte().cpu()))).to(image)


def timm_policy(name: str, **options):
    """The timm policy of this name, a function on Pillow images; options as in timm's create_transform.

    Raises:
        ValueError: timm has no such policy.
    """
    makers = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
    try:
        policy = makers.get(name.split("-")[0], auto_augment_transform)(name, options)
    except (AssertionError, ValueError, IndexError) as error:
        raise ValueError(f"timm has no policy {name!r} ({error})") from error
    _keep_one_bit(policy)
    return policy


def _keep_one_bit(policy) -> None:
    """Keep at least one bit: timm may posterize to zero bits, a black image, which Pillow 13 rejects."""
    groups = getattr(policy, "policy", None) or [policy.ops]
    for op in (op for group in groups for op in group):
        if op.name.startswith("Posterize"):
            op.level_fn = lambda level, hparams, bits=op.level_fn: (max(1, bits(level, hparams)[0]),)


def mixing(pixels: Pixels, num_classes: int):
    """Mixup and CutMix for a batch, chosen at random if both are on: (images, labels) -> (images, (B, C))."""
    choices = []
    if pixels.mixup:
        choices.append(v2.MixUp(alpha=pixels.mixup, num_classes=num_classes))
    if pixels.cutmix:
        choices.append(v2.CutMix(alpha=pixels.cutmix, num_classes=num_classes))
    return v2.RandomChoice(choices) if choices else None


def random_crop(image: Tensor, size: tuple[int, int], draw: Tensor) -> Tensor:
    """Crop (3, H, W) to ``size``; the first two numbers of ``draw``, in [0, 1), choose the position."""
    room = (image.shape[-2] - size[0] + 1, image.shape[-1] - size[1] + 1)
    top, left = int(draw[0] * room[0]), int(draw[1] * room[1])
    return image[:, top : top + size[0], left : left + size[1]]


def seed_all(seed: int) -> None:
    """Seed the (CPU) generators that torchvision and timm draw from; see ``own_randomness``."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Restore the generators on exit, so that dropout and other users of random numbers are not affected."""
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
