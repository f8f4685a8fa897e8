"""Labels that cannot be answered: of test images, where no image to learn from has them."""

import difflib

import numpy as np

from ...data.sources.base import DataError
from ...data.sources.names import plain
from .images import Images
from .words import counted, listed

NAMED = 5  # labels that a message lists


def require_learned(images: Images) -> None:
    """Raises DataError: test images have labels that no other image has; it names them and the nearest that are known.

    A model cannot give such an answer, so that all of these images would count as errors.
    """
    test = images.splits == "test"
    known = [images.class_names[i] for i in np.unique(images.labels[~test])]
    odd = np.setdiff1d(images.labels[test], images.labels[~test])
    if not len(odd):
        return
    names = [_named(images.class_names[i], known) for i in odd]
    count = int(np.isin(images.labels[test], odd).sum())
    raise DataError(
        f"{counted(len(odd), 'label')} of the test images {'is' if len(odd) == 1 else 'are'} unknown to the images to "
        f"learn from: {listed(names, NAMED)}. Correct them, or take {'this image' if count == 1 else 'these images'} "
        f"({counted(count, 'test image')}) out: no model can answer with a label that it has not learned"
    )


def _named(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(plain(name), list(map(plain, known)), 1)
    meant = next((f" (did you mean {other!r}?)" for other in known if near and plain(other) == near[0]), "")
    return f"{name!r}{meant}"
