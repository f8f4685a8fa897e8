"""Weights of networks that timm knows by name, from timm or from a file."""

import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from torch import nn

from . import convert
from .fit import require_fit, unwrapped
from .from_timm import by_size, create, module_of, own_size
from .tensors import UNREADABLE, StateDict, one_line, read_content, reading

logger = logging.getLogger(__name__)

MOST_CHANNELS = 16384  # of position embeddings that are resized
# Names of weights in a repository of the Hub, as timm looks for them.
HUB_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
SECONDS = 5.0  # for the Hub's first answer


def pretrained_vit(name: str, image_size: tuple[int, int], path: Path | None) -> nn.Module:
    """timm's network ``name`` with its weights, from a file or, without ``path``, as timm publishes them."""
    vit = create(name, image_size)
    if path is None:
        _fetch_weights(vit, name)
    else:
        _load_file(vit, name, image_size, path)
    return vit


def _fetch_weights(vit: nn.Module, name: str) -> None:
    """What timm publishes, from its cache or the network.

    Raises:
        FileNotFoundError: timm cannot get it.
        ValueError: it does not hold all of the network, or does not fit it at this size of images.
    """
    missing, found = [], []
    hook = vit.register_load_state_dict_post_hook(lambda _, keys: missing.extend(keys.missing_keys))

    def translated(state: StateDict, model: nn.Module) -> StateDict:
        found.append(True)
        return _translated(name, state, model)

    try:
        _require_hub(name)
        timm.models.load_pretrained(vit, num_classes=0, filter_fn=translated)
    except UNREADABLE as error:
        if found:
            raise ValueError(f"timm's weights of {name!r} do not fit the network: {one_line(error)}") from error
        hub_id = timm.get_pretrained_cfg(name).hf_hub_id
        how = f"`hf download {hub_id}` fetches them" if hub_id else "Fetch them once"
        raise FileNotFoundError(
            f"timm could not get the weights of {name!r} ({one_line(error)}). {how} where there is a network (they "
            "stay in the Hugging Face cache); or set MODEL.WEIGHT_PATH to a local file"
        ) from error
    finally:
        hook.remove()
    if missing := sorted(set(missing) - _never_saved(name)):
        raise ValueError(
            f"the weights that timm has of {name!r} lack {len(missing)} tensors: {', '.join(missing[:10])}"
        )


def hub_file(name: str) -> Path | None:
    """Where timm's weights are in the cache of the Hugging Face Hub; None if they have not been downloaded."""
    hub_id = timm.get_pretrained_cfg(name).hf_hub_id
    paths = (try_to_load_from_cache(hub_id, file) for file in HUB_FILES) if hub_id else ()
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def _require_hub(name: str) -> None:
    """Ask once whether the Hub can be reached, where weights have to come from it: its client tries for a minute.

    Raises:
        OSError: it cannot.
    """
    hub_id = timm.get_pretrained_cfg(name).hf_hub_id
    if not hub_id or hub_file(name):
        return
    try:
        get_hf_file_metadata(hf_hub_url(hub_id, "config.json"), timeout=SECONDS)
    except HfHubHTTPError:
        pass  # it answers; what it refuses is said where the weights are asked for
    except Exception as error:  # those of the HTTP library below that client, which changes
        raise ConnectionError(str(error)) from error


def _load_file(vit: nn.Module, name: str, image_size: tuple[int, int], path: Path) -> None:
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
    own = vit.state_dict()
    state = {key: tensor for key, tensor in state.items() if not key.startswith(_spare(vit, name, own))}
    for key in _never_saved(name) - state.keys():
        state[key] = own[key]
    if own.keys() == state.keys() and tuple(image_size) != own_size(name):
        _require_same_size(own, state, name, image_size)
    require_fit(vit, state, path, f"timm's {name!r}")
    vit.load_state_dict(state)
    if around:
        logger.info("weights: %s, unwrapped from %s", path, ", ".join(around))


def _spare(vit: nn.Module, name: str, own: StateDict) -> tuple[str, ...]:
    """How the names of tensors begin that belong to a classifier, or to another way of pooling."""
    classifier = vit.pretrained_cfg.get("classifier") or "head"
    spare = [f"{part}." for part in ((classifier,) if isinstance(classifier, str) else classifier)]
    heads = {f"{part.split('.')[0]}." for part in spare}  # "head.linear": a norm may go with it
    spare += [head for head in heads if not any(key.startswith(head) for key in own)]
    if getattr(vit, "attn_pool", None) is None and "siglip" in name:
        spare.append("attn_pool.")  # published with those whose pooling is another
    return tuple(spare)


def _require_same_size(own: StateDict, state: StateDict, name: str, image_size: tuple[int, int]) -> None:
    """Raises ValueError where a tensor depends on the size of images, and timm does not resize it."""
    if fixed := [key for key in own if own[key].shape != state[key].shape]:
        raise ValueError(
            f"timm does not resize {', '.join(fixed[:3])} of {name} for images of {by_size(image_size)} pixels: choose "
            f"DATA.CROPSIZE (or DATA.IMAGE_SIZE); its own is {by_size(own_size(name))}"
        )


def _never_saved(name: str) -> set[str]:
    """What no weights of this kind have: ConvNeXt's final norm after masked pre-training, which starts at 1 and 0."""
    return {"head.norm.weight", "head.norm.bias"} if name.endswith(".fcmae") else set()


def _in_timms_names(vit: nn.Module, name: str, state: StateDict) -> StateDict:
    """``state`` as timm would load it: other projects' names translated, position embeddings of this image size.

    Unchanged where timm cannot do that: ``require_fit`` reports what is wrong.
    """
    projection = getattr(getattr(vit, "patch_embed", None), "proj", None)
    patches = getattr(getattr(projection, "weight", None), "shape", None)
    for key, tensor in state.items():
        is_patches = key.endswith(("patch_embed.proj.weight", "visual.conv1.weight")) and tensor.ndim == 4
        if is_patches and patches and tensor.shape != patches:  # timm would take those of other patches, resampled
            return state
        if "pos" in key and "embed" in key and tensor.ndim > 1 and tensor.shape[-1] > MOST_CHANNELS:
            return state
    try:
        return _translated(name, state, vit)
    except UNREADABLE:
        return state


def _translated(name: str, state: StateDict, vit: nn.Module) -> StateDict:
    with warnings.catch_warnings(action="ignore"):  # of slower memory access, and of what torch will drop
        return filter_of(name)(dict(state), vit)


# What timm's modules call their translation of published files.
FILTERS = ("checkpoint_filter_fn", "pretrained_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


def filter_of(name: str) -> Callable[[StateDict, nn.Module], StateDict]:
    """timm's own translation of published files, with the arguments that it has for some networks."""
    module = sys.modules[timm.model_entrypoint(name.split(".")[0]).__module__]
    kind = "encoder" if name.split(".")[0].endswith("_enc") else "classifier"
    names = (*FILTERS, f"checkpoint_filter_fn_{kind}")
    found = next((getattr(module, own) for own in names if hasattr(module, own)), None)
    if found is None or (module_of(name) == "vision_transformer_hybrid" and "resnet" in name):  # one of no ViT
        return lambda state, _: state
    if "flexi" in name:
        return partial(found, interpolation="bilinear", antialias=False)
    if "radio" in name and hasattr(module, "_RADIO_ALIGN_CORNERS"):
        corners = any(part in name for part in module._RADIO_ALIGN_CORNERS)
        return partial(found, interpolation="bilinear", antialias=False, align_corners=corners)
    if module_of(name) == "deit":
        return partial(found, adapt_layer_scale=True)
    if len(inspect.signature(found).parameters) == 1:  # it does not ask for the network
        return lambda state, _: found(state)
    return found
