"""Networks that timm knows by name."""

import difflib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import timm
import torch
from timm.layers import PatchEmbed
from torch import nn

from ..families import family_of
from .refusals import check_size
from .tensors import one_line


def problem_with(name: str) -> str:
    """Why timm has no network, or no weights, of this name; "" if it has."""
    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        near = difflib.get_close_matches(network, timm.list_models(), n=1)
        return f"timm {timm.__version__} has no network of this name" + (f"; did you mean {near[0]}?" if near else "")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        return f"timm {timm.__version__} has no weights {tag!r} of {network}; known: {', '.join(tags) or 'none'}"
    return ""


def module_of(name: str) -> str:
    """The one of timm's modules that builds a network."""
    return timm.models.model_entrypoint(name.split(".")[0]).__module__.rsplit(".", 1)[1]


# --- images of one size


def create(name: str, image_size: tuple[int, int], **arguments: object) -> nn.Module:
    """timm's network ``name`` with random weights and no head, for images of this size.

    Also works under ``torch.device("meta")``, where it is found out whether the network takes such images.

    Raises:
        ValueError: it does not, or makes no features of them.
    """
    with _fitting(name, image_size):
        vit = _create(name, image_size, arguments)
    if has_patches := isinstance(getattr(vit, "patch_embed", None), PatchEmbed):
        check_size(image_size, vit.patch_embed.patch_size)
    if not (has_patches and family_of(vit).sequence) and next(vit.parameters()).device.type == "meta":
        with _fitting(name, image_size), torch.no_grad():
            features = vit.eval()(torch.empty(1, 3, *image_size, device="meta"))
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            raise ValueError(f"timm's {name} makes no vector of features of an image: choose another network")
    return vit


def _create(name: str, image_size: tuple[int, int], arguments: dict) -> nn.Module:
    if module_of(name) == "eva":  # else DINOv3's rotations are made on the CPU in every forward, which a GPU waits for
        arguments = {"dynamic_img_size": False, **arguments}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return timm.create_model(name, pretrained=False, num_classes=0, **arguments)  # it takes images of any size


def takes_size(vit: nn.Module) -> bool:
    """Whether such a network is built for images of one size."""
    return any("img_size" in inspect.signature(kind.__init__).parameters for kind in type(vit).__mro__[:-1])


@contextmanager
def _fitting(name: str, image_size: tuple[int, int]) -> Iterator[None]:
    """What timm raises inside for images of another size becomes a ValueError that says so."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        reason = f" ({one_line(error)})" if str(error) else ""
        raise ValueError(
            f"timm's {name} does not take images of {by_size(image_size)} pixels{reason}: choose DATA.CROPSIZE (or "
            f"DATA.IMAGE_SIZE); its own is {by_size(own_size(name))}"
        ) from error


def by_size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def own_size(name: str) -> tuple[int, ...]:
    known = timm.get_pretrained_cfg(name)
    return tuple(known.input_size[1:]) if known else (224, 224)
