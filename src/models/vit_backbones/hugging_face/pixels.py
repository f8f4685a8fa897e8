"""preprocessor_config.json of a transformers checkpoint: how its images become numbers."""

import logging
import math
from pathlib import Path
from typing import Any

from ....utils.io import read_json
from ..backbone import MeanStd

logger = logging.getLogger(__name__)

FILE, TOGETHER = "preprocessor_config.json", "processor_config.json"  # the latter where a tokenizer belongs to it
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def pixels_of(folder: Path, mean_std: MeanStd, interpolation: str) -> tuple[MeanStd, str]:
    """Mean and standard deviation of pixels in [0, 1], and how images are resized.

    Args:
        mean_std, interpolation: of the published checkpoints of this kind, for a folder that does not say.

    Raises:
        ValueError: the file is broken, or its values are none.
    """
    path = next((folder / name for name in (FILE, TOGETHER) if (folder / name).is_file()), None)
    content = read_json(path) if path else {}
    if path and path.name == TOGETHER and isinstance(content, dict):
        content = content.get("image_processor", {})
    if not isinstance(content, dict):
        raise ValueError(f"{path} is broken: it is not a JSON object")
    if not content:
        logger.debug("%s has no %s: pixels are as this kind of network has them", folder, FILE)
        return mean_std, interpolation
    resample = content.get("resample", 3 if interpolation == "bicubic" else 2)
    return _normalization(path, content), RESAMPLE.get(resample if isinstance(resample, int) else None, "bicubic")


def _normalization(path: Path, content: dict[str, Any]) -> MeanStd:
    if content.get("do_normalize", True) is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    else:
        mean, std = (_three(path, content, key) for key in ("image_mean", "image_std"))
        if not all(value > 0 for value in std):
            raise ValueError(f"{path}: image_std {list(std)} must be above 0, because pixels are divided by it")
    rescaled = content.get("do_rescale", True) is not False
    factor = content.get("rescale_factor", 1 / 255) if rescaled else 1.0
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        raise ValueError(f"{path}: rescale_factor {factor!r} is not a number above 0")
    if math.isclose(factor, 1 / 255):
        return mean, std
    scale = 255 * factor  # (255 x factor - mean) / std, for x in [0, 1]
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _three(path: Path, content: dict[str, Any], key: str) -> tuple[float, ...]:
    values = content.get(key)
    values = [values] * 3 if isinstance(values, (int, float)) else values
    is_right = isinstance(values, list) and len(values) == 3
    if not is_right or not all(isinstance(v, (int, float)) and abs(v) < 1e6 for v in values):  # NaN is not < 1e6
        raise ValueError(f"{path}: {key} is not three numbers, for red, green and blue")
    return tuple(map(float, values))
