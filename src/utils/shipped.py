"""The folders that come with ViTune beside its code: ready-made configs, and the demo's backbone."""

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
