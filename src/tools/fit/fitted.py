"""A finished fit in code: what it found, what it promises, and its model's answers to other images."""

import difflib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...api import upper
from ...configs.config import ConfigError
from ...configs.reference import all_keys
from ...configs.values import flatten
from ...data.decode import BadImage
from ...data.image_files import find_images
from ...engine.fit_folder import MODEL
from ...utils.logging import setup_logging
from ..finished.run import FinishedRun, open_run
from ..predict.work import probabilities
from .promise import Promise
from .report import summary
from .request import Request, default_folder
from .shipped import BATCH
from .work import fit_images

MINUTES = 10.0


@dataclass(frozen=True)
class Answer:
    """The class of an image, and its probability as the model has it."""

    name: str
    probability: float


class Fitted:
    """What ``fit`` returns.

    Attributes:
        folder: of everything: fit.json, fit.html, model/, hub/, model.onnx.
        content: fit.json.
    """

    def __init__(self, folder: Path, content: dict):
        self.folder = folder
        self.content = content

    @property
    def promise(self) -> Promise:
        """The accuracy to expect on images of the same kind."""
        own = self.content["promise"]
        return Promise(**{name: own[name] for name in Promise.__dataclass_fields__})

    @property
    def classes(self) -> list[str]:
        return list(self.content["data"]["classes"])

    @cached_property
    def run(self) -> FinishedRun:
        """The final model, read back."""
        return open_run(self.folder / MODEL)

    def predict(self, images: Any) -> list[Answer]:
        """The answer to each image, in order.

        Args:
            images: a file, a folder, a PIL image or an array (H, W), (H, W, 3) of uint8; or several of these.

        Raises:
            DataError: a name is missing, or has no images.
            BadImage: a file is broken; it is named.
        """
        rows = self.probabilities(images)
        return [Answer(self.classes[int(row.argmax())], float(row.max())) for row in rows]

    def probabilities(self, images: Any) -> np.ndarray:
        """(N, classes), in the order of ``classes``; ``images`` as in ``predict``."""
        names, given = [], []
        for image in _listed(images):
            files = find_images([str(image)]) if isinstance(image, (str, Path)) else [image]
            names += [str(file) if isinstance(file, str) else f"image {len(given) + i}" for i, file in enumerate(files)]
            given += files
        rows = []
        for first in range(0, len(given), BATCH):
            part = names[first : first + BATCH]
            some = [self._pixels(*pair) for pair in zip(part, given[first : first + BATCH], strict=True)]
            rows.append(probabilities(self.run, self.run.tuned.pixels.batch(some).to(self.run.device), part).numpy())
        return np.concatenate(rows) if rows else np.zeros((0, len(self.classes)))

    def _pixels(self, name: str, image: Any) -> torch.Tensor:
        try:
            if isinstance(image, str):
                return self.run.tuned.pixels.prepare(Path(image).read_bytes())
            return self.run.tuned.pixels.prepare(_array(image))
        except BadImage as error:
            raise BadImage(f"{name}: {error}") from error

    def report(self) -> str:
        """What was chosen, what to expect, what the test images said, what to do next."""
        return summary(self.content, self.folder)

    __str__ = report


def fit(
    data: str | Path,
    /,
    minutes: float | None = None,
    steps: int = 0,
    out: str | Path = "",
    seed: int = 42,
    backbones: Sequence[str] = (),
    quiet: bool = False,
    **keys: Any,
) -> Fitted:
    """From a folder of images to a model, and a promise of its accuracy; see ``vitune fit --help``.

        result = fit("photos", minutes=10)
        result.promise                     # expected, low, high
        result.predict(["new/1.jpg"])      # [Answer(name="cat", probability=0.98)]

    Args:
        data: class folders, or a CSV of images and labels.
        minutes: the budget; ``steps``: the budget in training steps instead. Without either: 10 minutes.
        out: where everything goes; "": output/fit/<name of the data>. The same call goes on with what is there.
        keys: config keys for every run: ``data={"cropsize": 112}``, ``model={"model_root": "weights"}``.

    Raises:
        ValueError, FileNotFoundError: bad settings, images that cannot be learned from, no weights.
    """
    _require_keys(keys)
    own = [str(text) for pair in flatten(upper(keys)).items() for text in pair]
    minutes = MINUTES if minutes is None and not steps else minutes
    request = Request(Path(data), minutes, steps, seed, list(backbones), own)
    folder = Path(out) if out else default_folder(Path(data))
    setup_logging(only=__package__)
    return Fitted(folder, fit_images(request, folder, quiet))


def _require_keys(keys: dict[str, Any]) -> None:
    """Raises ConfigError: a keyword is neither an argument of ``fit`` nor where config keys begin."""
    own = list(inspect.signature(fit).parameters)[:-1]
    begins = sorted({key.partition(".")[0].lower() for key in all_keys()})
    if unknown := [name for name in keys if name.lower() not in begins]:
        near = difflib.get_close_matches(unknown[0], [*own, *begins], 1)
        raise ConfigError(
            f"fit has no argument {unknown[0]!r}{f'; did you mean {near[0]!r}?' if near else ''}; known: "
            f"{', '.join(own)}, and config keys by their first part: {', '.join(begins)}"
        )


def _listed(images: Any) -> Iterable:
    several = isinstance(images, Iterable) and not isinstance(images, (str, Path, np.ndarray, Image.Image))
    return images if several else [images]


def _array(image: Any) -> np.ndarray:
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3)):
        raise BadImage(f"an array of {array.dtype}, {array.shape}: it must be uint8, (H, W), (H, W, 1) or (H, W, 3)")
    return array
