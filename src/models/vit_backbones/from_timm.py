"""Networks that timm knows by name: which of them can be tuned, and their weights, from timm or from a file."""

import difflib
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
from torch import nn

from ..families import FAMILIES, family_of
from ..families.base import Family
from . import convert
from .fit import require_fit, unwrapped
from .refusals import check_size
from .tensors import UNREADABLE, StateDict, read_content, reading

logger = logging.getLogger(__name__)

MOST_CHANNELS = 16384  # of position embeddings that are resized


def problem_with(name: str) -> str:
    """Why timm's network ``name`` cannot be tuned here; "" if it can."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        return f"timm {timm.__version__} has no network of this name" + (f"; did you mean {near[0]}?" if near else "")
    module = module_of(name)
    if family_named(name) is None:
        modules = [module for family in FAMILIES for module in family.timm_modules]
        return f"it is from timm's {module}; supported are networks from {', '.join(modules)}"
    if module == "deit" and "distilled" in name:
        return "it has two heads, for class and distillation token: take the variant without distillation"
    return ""


def module_of(name: str) -> str:
    """The one of timm's modules that builds a network."""
    return timm.models.model_entrypoint(name.split(".")[0]).__module__.rsplit(".", 1)[1]


def family_named(name: str) -> Family | None:
    """The family of timm's network ``name``; None where methods do not work on it."""
    module = module_of(name)
    return next((family for family in FAMILIES if module in family.timm_modules), None)


def size_arguments(name: str, image_size: tuple[int, int]) -> dict:
    """The argument by which timm's network ``name`` is built for a size of images; none where it takes any size."""
    return {} if family_named(name).any_size else {"img_size": image_size}


def pretrained_vit(name: str, image_size: tuple[int, int], path: Path | None) -> nn.Module:
    """timm's network ``name`` with its weights, from a file or, without ``path``, as timm publishes them."""
    size = size_arguments(name, image_size)
    vit = timm.create_model(name, pretrained=False, num_classes=0, **size)
    family_of(vit)  # which it must have
    if isinstance(getattr(vit, "blocks", None), nn.Identity):
        raise ValueError(f"timm's {name!r} has no blocks")
    if size:
        check_size(image_size, vit.patch_embed.patch_size)
    if path is None:
        _fetch_weights(vit, name)
    else:
        _load_file(vit, name, path)
    return vit


def _fetch_weights(vit: nn.Module, name: str) -> None:
    """What timm publishes, from its cache or the network.

    Raises:
        FileNotFoundError: timm cannot get it.
        ValueError: it does not hold all of the network.
    """
    missing = []
    hook = vit.register_load_state_dict_post_hook(lambda _, keys: missing.extend(keys.missing_keys))
    try:
        timm.models.load_pretrained(vit, num_classes=0, filter_fn=filter_of(name))
    except UNREADABLE as error:
        raise FileNotFoundError(
            f"timm could not get the weights of {name!r} ({type(error).__name__}). Fetch them once where there is a "
            "network (they stay in the Hugging Face cache), or set MODEL.WEIGHT_PATH to a local file"
        ) from error
    finally:
        hook.remove()
    if missing := sorted(set(missing) - _never_saved(name)):
        raise ValueError(
            f"the weights that timm has of {name!r} lack {len(missing)} tensors: {', '.join(missing[:10])}"
        )


def _load_file(vit: nn.Module, name: str, path: Path) -> None:
    """A file in timm's names, or in others that timm knows, head or not; wrappers of training code come off.

    Raises:
        ValueError: the file cannot be read, or does not hold all of the network and nothing else.
    """
    with reading(path, f"timm's {name!r}"):
        content = read_content(path)
        if "Transformer/encoder_norm/scale" in content:
            content = convert.google(path)
        state, around = unwrapped(content)
        state = _in_timms_names(vit, name, state)
    classifier = vit.pretrained_cfg.get("classifier") or "head"
    spare = [f"{part}." for part in ((classifier,) if isinstance(classifier, str) else classifier)]
    if getattr(vit, "attn_pool", None) is None and "siglip" in name:
        spare.append("attn_pool.")  # published with those whose pooling is another
    state = {key: tensor for key, tensor in state.items() if not key.startswith(tuple(spare))}
    for key in _never_saved(name) - state.keys():
        state[key] = vit.state_dict()[key]
    require_fit(vit, state, path, f"timm's {name!r}")
    vit.load_state_dict(state)
    if around:
        logger.info("weights: %s, unwrapped from %s", path, ", ".join(around))


def _never_saved(name: str) -> set[str]:
    """What no weights of this kind have: ConvNeXt's final norm after masked pre-training, which starts at 1 and 0."""
    return {"head.norm.weight", "head.norm.bias"} if name.endswith(".fcmae") else set()


def _in_timms_names(vit: nn.Module, name: str, state: StateDict) -> StateDict:
    """``state`` as timm would load it: other projects' names translated, position embeddings of this image size.

    Unchanged where timm cannot do that: ``require_fit`` reports what is wrong.
    """
    patches = vit.get_submodule("patch_embed.proj").weight.shape if hasattr(vit, "patch_embed") else None
    for key, tensor in state.items():
        is_patches = key.endswith(("patch_embed.proj.weight", "visual.conv1.weight")) and tensor.ndim == 4
        if is_patches and patches and tensor.shape != patches:  # timm would take those of other patches, resampled
            return state
        if "pos" in key and "embed" in key and tensor.ndim > 1 and tensor.shape[-1] > MOST_CHANNELS:
            return state
    try:
        return filter_of(name)(dict(state), vit)
    except UNREADABLE:
        return state


def filter_of(name: str) -> Callable[[StateDict, nn.Module], StateDict]:
    """timm's own translation of published files, with the arguments that it has for some ViTs."""
    family = sys.modules[timm.model_entrypoint(name.split(".")[0]).__module__]
    if "flexi" in name:
        return partial(family.checkpoint_filter_fn, interpolation="bilinear", antialias=False)
    if "radio" in name:
        corners = any(part in name for part in family._RADIO_ALIGN_CORNERS)
        return partial(family.checkpoint_filter_fn, interpolation="bilinear", antialias=False, align_corners=corners)
    return family.checkpoint_filter_fn
