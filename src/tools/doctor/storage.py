"""Folders that runs write to, and the weights and data sets that are here."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from fvcore.common.config import CfgNode

from ...utils.paths import user_cache
from .section import Section, size

LITTLE_DISK = 2 * 2**30


def folders(cfg: CfgNode) -> Section:
    """Where results, kept images and downloads go: free space, and whether they can be written to."""
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    section = Section("Folders")
    output, cache = Path(cfg.OUTPUT_DIR), Path(cfg.DATA.CACHE_DIR) if cfg.DATA.CACHE_DIR else user_cache()
    section.facts["OUTPUT_DIR"] = _described(output)
    if why := unwritable(output):
        section.errors.append(f"OUTPUT_DIR {output} cannot be written to ({why}): choose another OUTPUT_DIR")
    elif (free := _free(output)) < LITTLE_DISK:
        section.warnings.append(
            f"only {size(free)} free at OUTPUT_DIR {output}: a run with states to resume may need more"
        )
    section.facts["cache"] = _described(cache)
    if cache.is_dir():
        section.facts["cache"] += f"; holds {size(_size(cache))}"
    if why := unwritable(cache):
        section.warnings.append(
            f"{cache} cannot be written to ({why}): decoded images are not kept for later runs; set DATA.CACHE_DIR, or "
            "XDG_CACHE_HOME in the environment"
        )
    hub = Path(HF_HUB_CACHE)
    section.facts["Hugging Face"] = _described(hub) + ("; offline (HF_HUB_OFFLINE)" if HF_HUB_OFFLINE else "")
    if why := unwritable(hub):
        section.warnings.append(
            f"{hub} cannot be written to ({why}): timm: backbones cannot be downloaded; set HF_HOME"
        )
    if why := unwritable(Path.home()):
        section.warnings.append(f"the home folder {Path.home()} cannot be written to ({why}): set HOME to one that can")
    return section


def unwritable(folder: Path) -> str:
    """Why no file can be made in a folder, or, where it is not there yet, in the nearest that is; "" if one can."""
    place = nearest(folder)
    if not place.is_dir():
        return f"{place} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__


def nearest(path: Path) -> Path:
    """The path itself if there is something, else the nearest folder above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _described(folder: Path) -> str:
    there = "" if folder.is_dir() else ", not there yet"
    return f"{folder.absolute()}{there}; {size(_free(folder))} free"


def _free(folder: Path) -> int:
    return shutil.disk_usage(nearest(folder)).free


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):  # another process removes what it no longer needs
                total += os.lstat(os.path.join(place, file)).st_size
    return total


def weights(cfg: CfgNode) -> Section:
    """Backbones whose weights are on this disk."""
    from ...models.vit_backbones.zoo import MODEL_ZOO
    from ..list.backbones import downloaded, zoo_file

    section = Section("Weights")
    root = cfg.MODEL.MODEL_ROOT
    here = [name for name in MODEL_ZOO if zoo_file(name, root)]
    section.facts[f"in {root}"] = here or "none"
    missing = len(MODEL_ZOO) - len(here)
    section.facts["not here"] = f"{missing} of {len(MODEL_ZOO)}: vitune list backbones prints what each file is called"
    section.facts["downloaded"] = downloaded() or "none of timm's"
    return section


def data(cfg: CfgNode) -> Section:
    """Data sets that are ready to be read."""
    from ...data.listing import places, where_ready
    from ...data.tasks import TASKS

    section = Section("Data sets")
    roots = places(cfg.DATA.DATAPATH)
    ready = {name: "; ".join(where) for name, task in TASKS.items() if (where := where_ready(task, roots))}
    section.facts |= ready
    section.facts["looked in"] = [str(root) if root.is_dir() else f"{root} (not there)" for root in roots]
    if cfg.DATA.DATAPATH and not roots[0].is_dir():
        section.errors.append(f"DATA.DATAPATH {cfg.DATA.DATAPATH} is not there")
    return section
