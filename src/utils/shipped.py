"""The folders that come with ViTune beside its code: ready-made configs, and the demo's backbone."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped(what: str) -> Path:
    """The folder "configs" or "pretrained": inside the package where it is installed, beside ``src`` in a checkout."""
    installed = PACKAGE / "shipped" / what
    return installed if installed.is_dir() else PACKAGE.parent / what


def project() -> str:
    """What ``pip install`` takes ViTune from: the checkout's folder, or the name of the package."""
    root = PACKAGE.parent
    return str(root) if (root / "pyproject.toml").is_file() else "vitune"


def config_names(folder: Path) -> dict[str, Path]:
    """Every config below ``folder``, by the name that commands take: "methods/lora" -> folder/methods/lora.yaml."""
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def command(config: Path) -> str:
    """What runs a config: "vitune tune" if it describes a sweep, else "vitune train"."""
    return "vitune tune" if re.search(r"^SWEEP:", config.read_text(encoding="utf-8"), re.MULTILINE) else "vitune train"
