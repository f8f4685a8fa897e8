"""The final model's answers to images, and the forms in which it leaves: a run folder, ONNX, a folder for the Hub."""

import logging
from pathlib import Path

import numpy as np

from ...engine.checkpoint import load_tuned
from ...engine.results import RunFolder
from ...utils.io import write_atomic
from ..export.hub import write_hub
from ..export.network import network_of
from ..export.onnx_file import require_onnx, write_onnx
from ..finished.run import open_run
from ..predict.work import predictions
from .evidence import Answers
from .images import Images
from .view import View

logger = logging.getLogger(__name__)

BATCH = 64
ONNX, HUB = "model.onnx", "hub"


def answers_of(model: Path, images: Images, chosen: np.ndarray, keep: Path) -> Answers:
    """Probabilities of these images by the finished run ``model``; kept in a file, so that they are read once.

    Raises:
        ValueError: an image can no longer be read.
    """
    if not keep.is_file():
        run, broken = open_run(model), {}
        files = [str(images.path(i)) for i in chosen]
        rows = [found.probabilities.numpy() for found in predictions(run, files, 1, BATCH, broken)]
        if broken:
            name, why = next(iter(broken.items()))
            raise ValueError(f"{len(broken)} images can no longer be read, such as {name}: {why}")
        write_atomic(keep, lambda path: _save(path, np.stack(rows)))
    return Answers(chosen, np.load(keep, allow_pickle=False))


def ship(folder: Path, model: Path, view: View) -> dict:
    """Write what can be written; where each form is, and why one is missing."""
    files: dict = {"run": model.name, "tuned": f"{model.name}/tuned.safetensors"}
    run = RunFolder(model)
    network = network_of(load_tuned(model))
    for name, out in (("onnx", ONNX), ("hub", HUB)):
        try:
            require_onnx()
            if name == "onnx":
                write_onnx(network, folder / out)
            else:
                write_hub(network, run.tuned, run.read_result(), folder / out)
            files[name] = out
        except (ValueError, OSError, RuntimeError, ImportError) as error:  # the model itself is complete without it
            files[f"why_no_{name}"] = str(error).splitlines()[0]
            view.say(f"note: no {out}: {files[f'why_no_{name}']}")
    return files


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
