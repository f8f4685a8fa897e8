"""Which versions are installed, and which optional packages."""

import importlib.metadata
import platform
import shutil
import sys

from packaging.requirements import Requirement

from ... import __version__
from ...utils.shipped import PACKAGE, project
from .section import Section

SHOWN = ("torch", "torchvision", "timm", "peft", "numpy", "safetensors")
OLDEST_TORCH = "2.6"
PREPARE = "prepare"  # of an environment of its own
# Distribution -> the extra of ViTune that installs it, and what needs it.
OPTIONAL = {
    "onnx": ("onnx", "vitune export --to onnx"),
    "onnxruntime": ("onnx", "vitune export --to onnx"),
    "onnxscript": ("onnx", "vitune export --to onnx"),
    "ray": ("ray", "vitune tune --ray"),
    "fastapi": ("serve", "vitune serve"),
    "uvicorn": ("serve", "vitune serve"),
    "python-multipart": ("serve", "vitune serve"),
    "wandb": ("wandb", "WANDB"),
    "mlflow": ("mlflow", "MLFLOW"),
    "tensorflow-cpu": (PREPARE, "vitune prepare, in an environment of its own"),
}


def versions() -> Section:
    """ViTune, Python and the packages that it is built on; what is missing or older than it needs."""
    section = Section("Versions")
    section.facts["ViTune"] = f"{__version__} in {PACKAGE}"
    section.facts["Python"] = f"{platform.python_version()}, {sys.executable}"
    section.facts["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    section.facts |= {name: installed(name) or "not installed" for name in SHOWN}
    for requirement in required():
        have, name = installed(requirement.name), requirement.name
        if have is None:
            section.errors.append(f"{name} is not installed: pip install '{requirement}'")
        elif not requirement.specifier.contains(have, prereleases=True):
            section.warnings.append(
                f"{name} {have} is older than ViTune is tested with: pip install -U '{requirement}'"
            )
    return section


def required() -> list[Requirement]:
    """What ViTune needs, by its own record; nothing where it runs without having been installed."""
    try:
        lines = importlib.metadata.requires("vitune") or []
    except importlib.metadata.PackageNotFoundError:
        return [Requirement(f"torch>={OLDEST_TORCH}")]
    requirements = map(Requirement, lines)
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


def installed(distribution: str) -> str | None:
    """The version of an installed distribution; None if there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def optional() -> Section:
    """Optional packages, and what installs those that are missing."""
    section = Section("Optional packages")
    section.facts |= {name: installed(name) or f"not installed; for {what}" for name, (_, what) in OPTIONAL.items()}
    missing = dict.fromkeys(extra for name, (extra, _) in OPTIONAL.items() if not installed(name) and extra != PREPARE)
    if missing:
        section.facts["to add them"] = f"pip install '{project()}[{','.join(missing)}]'"
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    section.facts["C++ compiler"] = compiler or "none; MODEL.COMPILE on a CPU needs one"
    return section
