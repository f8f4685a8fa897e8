"""What ``vitune fit`` writes: fit.json, and in model/ the finished run that it ended with."""

from pathlib import Path

RESULT, MODEL = "fit.json", "model"


def is_fit(folder: Path) -> bool:
    """Whether ``vitune fit`` wrote the folder; the runs that it tried are in it too."""
    return (folder / RESULT).is_file()


def run_of(path: Path) -> Path:
    """The run that a path stands for: of a fit's folder its final model, otherwise the path itself."""
    return path / MODEL if is_fit(path) else path
