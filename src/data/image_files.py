"""Image files that someone names on a command line: files, folders and patterns; and their pixels, if they have any."""

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
    """Every file that ``names`` mean, in their order, each once.

    A file is taken whatever it is called; of a folder the images in it and in the folders below, sorted, nothing
    hidden; a pattern (``photos/**/*.jpg``) stands for the files and folders it matches.

    Args:
        missing: takes the names that mean nothing, or no image, and why, as long as others mean some.

    Raises:
        DataError: a name that means nothing, or no image; all of them are listed.
    """
    found, wrong = [], {}
    for name in names:
        # A name with brackets in it may be there as it stands.
        matches = [name] if os.path.exists(name) else sorted(glob.glob(os.path.expanduser(name), recursive=True))
        files = [file for match in matches for file in _images_at(match)]
        if not matches:
            wrong[name] = "is missing"
        elif not files:
            wrong[name] = f"holds no images ({', '.join(IMAGE_ENDINGS)})"
        found += files
    if wrong and (missing is None or not found):
        raise DataError("\n".join(f"{name} {why}" for name, why in wrong.items()))
    if missing is not None:
        missing |= wrong
    return list(dict.fromkeys(found))


def _images_at(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return sorted(os.path.join(path, name) for name in files_below(path) if name.lower().endswith(IMAGE_ENDINGS))


def read_images(files: Sequence[str], pixels: Pixels, workers: int) -> Iterator[tuple[str, Tensor | str]]:
    """Every file and its image, (3, H, W) in 0..255, or, where it is broken, why; decoded by threads."""

    def look(file: str) -> Tensor | str:
        try:
            return pixels.prepare(Path(file).read_bytes())
        except Exception as error:  # whatever decoders raise for broken files; it is listed, never hidden
            return why(error)

    brightest = -1.0
    with threads(workers) as pool:
        for file, image in zip(files, in_order(pool, look, files, ahead=2 * workers + 2), strict=True):
            if not isinstance(image, str):
                brightest = max(brightest, image.max().item())
            yield file, image
    if 0 <= brightest <= DIM:
        said = "note: no pixel is brighter than %g of 255: of files with more than 8 bits DATA.WHITE says what is white"
        logger.warning(said, brightest)
