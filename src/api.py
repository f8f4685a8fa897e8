"""For code and notebooks: tune a timm network in memory, in one call, with the methods and errors of the configs.

    from vitune import tune, save, load, merged_state_dict

    vit = timm.create_model("vit_base_patch16_224", pretrained=True)
    model = tune(vit, "lora+freqfit", num_classes=10, lora={"rank": 4})
    ...                                    # train what requires a gradient: logits = model(images)
    save(model, "tuned.safetensors")       # only what was learned
    model = load("tuned.safetensors", vit)

``vit`` itself is never changed, so that it may be tuned many times over. All models that are made of it share its
memory; whoever changes weights, also by hand, gets memory of its own for these (models/copies.py).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from .configs.config import model_cfg
from .engine.checkpoint import load_tuned, save_tuned
from .engine.sensitivity import drop_paths, new_head, squared_gradients
from .engine.what_to_keep import level_of, plan_of
from .models.allocation import UNIT, Allocation, allocate
from .models.copies import sharing_copy
from .models.families import family_of
from .models.merge import load_merged, merged_state_dict
from .models.pooling import set_pool
from .models.recompute import recompute
from .models.vit_models import METHODS, TunedViT, config_name, parse
from .utils.text import a_kind

__all__ = ["find_allocation", "load", "load_merged", "merged_state_dict", "save", "tune"]


def tune(vit: nn.Module, methods: str, num_classes: int | None = None, seed: int = 42, **keys: Any) -> TunedViT:
    """A copy of ``vit`` with PEFT methods on it, everything else frozen, and a new head; in training mode.

    Args:
        vit: a timm VisionTransformer, SwinTransformer or ConvNeXt with weights, in float32, on any device.
        methods: as ``MODEL.TRANSFER_TYPE``, with the filters of ``FREQFIT`` among them: "lora+freqfit", "partial-2".
        num_classes: of the new head; 0: no head, the features come out. None: the head of ``vit``, exactly, or no
            head where it has none.
        seed: of the methods' and the head's initialisation; torch's own random numbers are left as they are.
        keys: config keys below ``MODEL``, in any case: ``lora={"rank": 4}``, ``head_init="zero"``.

    Raises:
        ValueError: unknown methods or keys (the nearest known one is named), methods that do not fit this network, a
            network that is wrapped or not timm's, or one whose head cannot be kept.
    """
    cfg = model_cfg(methods, upper(keys))
    require_timm(vit)
    if wrong := {str(p.dtype) for p in vit.parameters() if p.dtype != torch.float32}:
        raise ValueError(
            f"the network must be in float32, and it has {', '.join(sorted(wrong))}: tune it so, and compute in half "
            "precision under autocast"
        )
    if num_classes is not None and (
        isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0
    ):
        raise ValueError(f"num_classes is {num_classes!r}: give a number of classes, 0 for no head, None for its own")
    old = kept_head(vit, cfg.MODEL) if num_classes is None else None
    vit = sharing_copy(vit)
    set_pool(vit, cfg.MODEL.POOL)
    classes = num_classes or (old.out_features if old else 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TunedViT(vit, parse(methods), cfg.MODEL, classes)
    if old:
        _keep_head(model, old)
    model.cfg = cfg
    model = model.to(next(vit.parameters()).device)
    recompute(model.vit, model.sites, plan_of(model, level_of(cfg.MODEL), family_of(model.vit).image_size(model.vit)))
    return model


def save(model: TunedViT, path: str | Path, class_names: Iterable[str] = ()) -> None:
    """Write what was learned, whole or not at all: a safetensors file with the methods' keys inside."""
    names = list(class_names) or [str(i) for i in range(model.num_classes)]
    if len(names) != model.num_classes:
        raise ValueError(f"{len(names)} class names for {model.num_classes} classes")
    save_tuned(Path(path), model, model.cfg, names)


def load(path: str | Path, vit: nn.Module) -> TunedViT:
    """A copy of ``vit`` with what ``save``, or a run (tuned.safetensors), wrote; in eval mode.

    Raises:
        FileNotFoundError, ValueError: no such file, one that is not ours, or of other weights than those of ``vit``.
    """
    require_timm(vit)
    tuned = load_tuned(path, vit=vit)
    tuned.model.cfg = tuned.cfg
    return tuned.model.to(next(vit.parameters()).device)


def find_allocation(
    vit: nn.Module,
    method: str,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    path: str | Path,
    seed: int = 42,
    **keys: Any,
) -> Allocation:
    """SPT's first stage for ``tune(vit, "spt_lora", spt_lora={"allocation": path})``: writes the file ``path``.

    Args:
        method: "spt_lora" or "spt_adapter"; ``keys`` are its own: ``budget=0.2`` (in millions), ``alpha``, ``rank``...
        batches: (images, labels) of the training set, the paper's are 16 of 32 images; all are used.
    """
    cfg = model_cfg(method, {config_name(method): upper(keys)})
    own = cfg.MODEL[config_name(method)]
    model = tune(vit, "linear", num_classes, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new_head(model)
        drop_paths(model.eval().vit, own.VIT_DROP_PATH)
        sensitivity = squared_gradients(model, batches)
    found = allocate(model.vit, sensitivity, METHODS[method].rules(own, model.vit), own.BUDGET * UNIT)
    found.save(Path(path))
    return found


def require_timm(vit: nn.Module) -> None:
    """Raises ValueError unless this is a whole network of timm's, by itself."""
    if inside := next(
        (name for name in ("module", "_orig_mod") if isinstance(getattr(vit, name, None), nn.Module)), ""
    ):
        raise ValueError(f"the network is inside {a_kind(vit)}: give .{inside} of it, and wrap what comes out")
    if not isinstance(vit, nn.Module) or next(vit.parameters(), None) is None:
        raise ValueError(f"a timm network with weights is needed, and this is {a_kind(vit)}")
    needed = ("get_classifier", "reset_classifier", "forward_features", "forward_head")
    if missing := [name for name in needed if not callable(getattr(vit, name, None))]:
        raise ValueError(
            f"{a_kind(vit)} has no {' and no '.join(missing)}: give a network as timm.create_model makes it, "
            "without features_only"
        )
    family_of(vit)


def kept_head(vit: nn.Module, cfg: CfgNode) -> nn.Linear | None:
    """The head that ``tune`` without num_classes keeps; None where ``vit`` has none.

    Raises:
        ValueError: it is more than one linear map on the pooled features, there is more to the network's logits, or
            ``cfg``, the node ``MODEL``, asks for hidden layers or another pooling.
    """
    head = vit.get_classifier()
    if isinstance(head, nn.Identity) or head is None:
        return None
    why = ""
    if not isinstance(head, nn.Linear):
        several = isinstance(head, (tuple, list))
        why = f"it is {f'{len(head)} heads' if several else f'a {type(head).__name__}'}, not one linear map"
    elif cfg.MLP_NUM:
        why = "MLP_NUM asks for hidden layers before it"
    elif cfg.POOL not in ("", getattr(vit, "global_pool", "")):
        why = "POOL asks for other features than it has learned"
    elif not _gives_the_logits(head, vit):
        why = "there is more to the network's logits than this head"
    if why:
        raise ValueError(f"the network's own head cannot be kept: {why}. Give num_classes for a new one")
    return head


@torch.no_grad()
def _gives_the_logits(head: nn.Linear, vit: nn.Module) -> bool:
    """Whether the logits are what ``head`` makes of the pooled features, to rounding."""
    network = sharing_copy(vit).eval()
    weight = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *family_of(vit).image_size(vit), generator=generator).to(weight)
    logits = network(image)
    own = head(network.forward_head(network.forward_features(image), pre_logits=True))
    return logits.shape == own.shape and torch.allclose(logits, own, rtol=1e-3, atol=1e-3 * logits.abs().max().item())


def upper(keys: dict[str, Any]) -> dict[str, Any]:
    """Config keys as configs spell them: {"lora": {"rank": 4}} -> {"LORA": {"RANK": 4}}. KWARGS' own are peft's."""
    return {
        name.upper(): upper(value) if isinstance(value, dict) and name.upper() != "KWARGS" else value
        for name, value in keys.items()
    }


def _keep_head(model: TunedViT, old: nn.Linear) -> None:
    new = model.head.last_layer
    if old.weight.shape != new.weight.shape:
        raise ValueError(
            f"the head reads {old.in_features} features, and with these methods there are {new.in_features}: give "
            "num_classes for a new one"
        )
    with torch.no_grad():
        new.weight.copy_(old.weight)
        new.bias.zero_() if old.bias is None else new.bias.copy_(old.bias)
