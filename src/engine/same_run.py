"""Checks that a run's folder is free, or holds the same run, interrupted."""

import dataclasses
import logging

from fvcore.common.config import CfgNode
from yaml import YAMLError

from ..configs.config import flatten, keys_of, load_cfg_text
from ..configs.keys import MACHINE
from ..data.opened import Data
from ..utils import distributed
from ..utils.io import read_json, write_json
from .results import RunFolder

logger = logging.getLogger(__name__)

# May change when an interrupted run goes on: with less of it, a run whose test did not fit into memory is not lost.
EVALUATION = ("DATA.EVAL_BATCH_SIZE",)


def require_free(cfg: CfgNode, folder: RunFolder, resume: bool) -> None:
    if folder.result.is_file():
        raise FileExistsError(
            f"{folder.path} already holds a result and is not overwritten. Add --resume to see it, or choose another "
            "OUTPUT_DIR or --run-dir"
        )
    if folder.last.is_file() and not resume:
        raise FileExistsError(
            f"{folder.path} holds an interrupted run. Add --resume to continue it, or remove the folder"
        )
    if resume:
        require_same(cfg, folder)


def require_same(cfg: CfgNode, folder: RunFolder) -> None:
    if not folder.config.is_file():
        return
    try:
        before = load_cfg_text(folder.config.read_text())
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{folder.config} is broken: remove {folder.path} to start again") from error
    if other := different_keys(before, cfg, (*keys_of(MACHINE), *EVALUATION)):
        raise FileExistsError(
            f"{folder.path} holds a run with another config; choose another --run-dir, or remove it. Different:\n"
            + differences(before, cfg, other)
        )


def same_data(folder: RunFolder, data: Data) -> Data:
    """``data``, with a note if an interrupted run continues with other images; ``folder.data`` records its identity.

    Raises:
        ValueError: it would continue with other classes.
    """
    now, notes = data.identity(), []
    if folder.last.is_file() and folder.data.is_file():
        before = read_json(folder.data)
        if (names := before["class_names"]) != now["class_names"]:
            gone = [name for name in names if name not in now["class_names"]]
            new = [name for name in now["class_names"] if name not in names]
            raise ValueError(
                f"{folder.path} was interrupted with other classes: to continue would mix up labels. There "
                f"were {len(names)}, now there are {len(now['class_names'])}; gone: {', '.join(gone[:5]) or 'none'}, "
                f"new: {', '.join(new[:5]) or 'none'}. Put the images back, or remove {folder.path}"
            )
        notes = before["notes"] + [
            f"the {name} images are not those that the run began with: {was['images']:,} then, {have['images']:,} now"
            for name, was in before["splits"].items()
            if (have := now["splits"].get(name, {"images": 0})) != was
        ]
        if before.get("pixels") != now["pixels"]:
            notes.append("the run began with other pixels: an earlier version prepared images differently")
    for note in notes:
        logger.warning("note: %s", note)
    if distributed.is_first():
        write_json(folder.data, now | {"notes": notes})
    return dataclasses.replace(data, notes=data.notes + notes)


def different_keys(one: CfgNode, other: CfgNode, but: tuple[str, ...]) -> list[str]:
    """The keys in which two configs differ, except those in ``but``."""
    ours, theirs = flatten(one), flatten(other)
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key) and key not in but)


def differences(before: CfgNode, now: CfgNode, keys: list[str]) -> str:
    """One line per key: what it was, and what it is now."""
    old, new = flatten(before), flatten(now)
    return "\n".join(f"  - {key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in keys)
