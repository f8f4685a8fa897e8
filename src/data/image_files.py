"""Image files named on a command line: files, folders and patterns; and reading their pixels."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ..utils.threads import in_order, threads
from .decode import why
from .pixels import Pixels
from .sources.base import IMAGE_ENDINGS, DataError
from .sources.folder import files_below

logger = logging.getLogger(__name__)

DIM = 63  # of 255


def find_images(names: Sequence[str], missing: dict[str, str] | None = None) -> list[str]:
    """All files that ``names`` refer to, in that order, without repetition.

    A file is taken whatever its name. A folder stands for the images in it and in its subfolders, sorted, without
    hidden files. A pattern (``photos/**/*.jpg``) stands for the files and folders it matches.

    Args:
        missing: filled with the names that match nothing, or no images, and why, as long as other names match some.

    Raises:
        DataError: a name matches nothing, or no images; all such names are listed.
    """
    images, wrong = [], {}
    for name in names:
        # A file name may itself contain brackets.
        matches = [name] if os.path.exists(name) else sorted(glob.glob(os.path.expanduser(name), recursive=True))
        files = [file for match in matches for file in _images_at(match)]
        if not matches:
            wrong[name] = "is missing"
        elif not files:
            wrong[name] = f"holds no images ({', '.join(IMAGE_ENDINGS)})"
        images += files
    if wrong and (missing is None or not images):
        raise DataError("\n".join(f"{name} {why}" for name, why in wrong.items()))
    if missing is not None:
        missing |= wrong
    return list(dict.fromkeys(images))


def _images_at(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return sorted(os.path.join(path, name) for name in files_below(path) if name.lower().endswith(IMAGE_ENDINGS))


def read_images(files: Sequence[str], pixels: Pixels, workers: int) -> Iterator[tuple[str, Tensor | str]]:
    """Yield every file with its image, (3, H, W) in 0..255, or with the error if it is broken; threads decode."""

    def look(file: str) -> Tensor | str:
        try:
            return pixels.prepare(Path(file).read_bytes())
        except Exception as error:  # decoders raise anything for broken files; all are listed
            return why(error)

    brightest = -1.0
    with threads(workers) as pool:
        for file, image in zip(files, in_order(pool, look, files, ahead=2 * workers + 2), strict=True):
            if not isinstance(image, str):
                brightest = max(brightest, image.max().item())
            yield file, image
    if 0 <= brightest <= DIM:
        message = (
            "note: no pixel is brighter than %g of 255: DATA.WHITE sets the white level of files with more than 8 bits"
        )
        logger.warning(message, brightest)
