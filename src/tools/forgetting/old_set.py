"""What an encoder retains of an old data set: k-NN and a linear probe on its pooled features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...configs.config import ConfigError, get_cfg, load_cfg_text
from ...data.loader import Loader
from ...data.opened import open_data
from ...data.sources.base import DataError
from ...engine.checkpoint import hash_of
from ...engine.knn import knn_accuracies
from ...engine.outputs import outputs
from ...engine.probe import linear_probe
from ...models.families import family_of
from ..finished.run import FinishedRun
from ..finished.sets import Wanted, other_data

# Keys for the processing of a run's own images; for the old set's images, its own task decides.
OF_ONE_SET = ("RESIZE", "AUGMENT", "JPEG_QUALITY", "NORMALIZE", "MEAN", "STD")
COLOURS = {"DATA.PIXELS", "DATA.NORMALIZE", "DATA.MEAN", "DATA.STD"}
# Keys that belong to the encoder or are given by --on.
FIXED = {"DATA.FEATURE", "DATA.CROPSIZE", "DATA.IMAGE_SIZE", "DATA.NAME", "DATA.DATAPATH", "DATA.NO_TEST"}


@dataclass(frozen=True)
class OldSet:
    """The old data set, as a run's encoder sees it.

    Attributes:
        bank: its training images, processed as in evaluation.
        about: a description of the data, with the number of images.
    """

    name: str
    cfg: CfgNode
    bank: Loader
    test: Loader
    num_classes: int
    about: dict


def check_settings(pairs: Sequence[str]) -> tuple[list[str], list[str]]:
    """KEY VALUE pairs for the old set's images, and those for the runs.

    Raises:
        ConfigError: a key cannot be changed here.
    """
    if len(pairs) % 2:
        raise ConfigError(f"{pairs[-1]} has no value: settings are KEY VALUE pairs")
    both = list(zip(pairs[::2], pairs[1::2], strict=True))
    if fixed := [key for key, _ in both if key in FIXED]:
        raise ConfigError(f"{', '.join(fixed)} cannot be changed: the encoder is the run's, and --on names the old set")
    theirs = [text for pair in both if pair[0].startswith("DATA.") for text in pair]
    return theirs, [text for pair in both if not pair[0].startswith("DATA.") for text in pair]


def old_config(run: FinishedRun, wanted: Wanted, changes: Sequence[str]) -> CfgNode:
    """The run's config for the old set's images; ``changes`` are KEY VALUE pairs of ``DATA``.

    Raises:
        ConfigError: keys or values are invalid.
    """
    cfg, default = other_data(run.cfg, wanted.task or "folder", wanted.path), get_cfg()
    cfg.defrost()
    for key in OF_ONE_SET:
        cfg.DATA[key] = default.DATA[key]
    return load_cfg_text(cfg.dump(), ["DATA.TRAIN_SPLIT", "trainval", *changes])


def open_old(run: FinishedRun, wanted: Wanted, changes: Sequence[str] = ()) -> OldSet:
    """The old set with the run's image size and, unless ``changes`` override them, its mean and standard deviation.

    Raises:
        ConfigError, DataError: data are missing, have no test images, or contradict the settings.
    """
    cfg = old_config(run, wanted, changes)
    data = open_data(cfg)
    if "test" not in data.splits:
        raise DataError(f"{wanted.name} has no test images: a folder needs train/ and test/ with class folders in them")
    if not COLOURS & set(changes[::2]):
        ours = run.tuned.pixels
        data = replace(data, pixels=replace(data.pixels, mean=ours.mean, std=ours.std))
    data = replace(data, splits={"bank": data.splits["train"], "test": data.splits["test"]})
    loaders, left_out = data.loaders(cfg, run.device)
    about = {
        "name": wanted.name,
        "task": data.task.name,
        "layout": data.layout,
        "version": data.version,
        "images": {"train": len(loaders["bank"].labels), "test": len(loaders["test"].labels)},
        "classes": len(data.class_names),
        "pixels": data.pixels.__dict__,
        "notes": data.notes,
        "left_out": left_out,
    }
    return OldSet(wanted.name, cfg, loaders["bank"], loaders["test"], len(data.class_names), about)


@dataclass(frozen=True)
class Encoder:
    """images (B, 3, H, W) -> pooled features (B, width), with everything that determines these."""

    network: Callable[[Tensor], Tensor]
    width: int
    facts: dict


def tuned_encoder(run: FinishedRun) -> Encoder:
    """The run's ViT with its methods, up to the final norm and pooling: without the head and without VQT's features."""
    return Encoder(run.model.pooled, run.model.vit.num_features, run.facts)


def frozen_encoder(run: FinishedRun) -> Encoder:
    """The pre-trained backbone."""
    vit = run.pre_trained()
    facts = {
        "weights": hash_of(vit.state_dict()),
        "backbone": run.cfg.DATA.FEATURE,
        "size": repr(run.tuned.pixels.size),
    }
    if run.cfg.MODEL.POOL:
        facts["pool"] = run.cfg.MODEL.POOL
    return Encoder(_pooled(vit), vit.num_features, facts)


def _pooled(vit: nn.Module) -> Callable[[Tensor], Tensor]:
    return partial(family_of(vit).pooled, vit)


def remembered(encoder: Encoder, old: OldSet, ks: Sequence[int], temperature: float, probe: bool) -> dict:
    """{"knn": {k: {"top1", "top5"}}, "probe": {"top1", "top5", ...} or None} of an encoder on the old set.

    Raises:
        ValueError: features are infinite or NaN.
    """
    bank, test = (
        outputs(old.cfg, f"features of {old.name} {split}", encoder.network, encoder.width, loader, encoder.facts)
        for split, loader in (("train", old.bank), ("test", old.test))
    )
    device = old.bank.device
    bank, test = bank.to(device), test.to(device)
    if not (torch.isfinite(bank).all() and torch.isfinite(test).all()):
        raise ValueError(f"features of {old.name} are infinite or NaN: compute them in float32 with SOLVER.AMP off")
    labels = old.bank.labels.to(device), old.test.labels.to(device)
    knn = knn_accuracies(bank, labels[0], test, labels[1], old.num_classes, ks, temperature)
    fitted = linear_probe(bank, labels[0], test, labels[1], old.num_classes) if probe else None
    return {"knn": knn, "probe": fitted}
