"""Why a name of a backbone, or a size of its images, is refused. Without torch: configs are checked with it."""

import difflib
from collections.abc import Iterable, Sequence


def unknown_backbone(name: str, names: Iterable[str]) -> str:
    """The sentence for a DATA.FEATURE that is none of ``names``."""
    near = difflib.get_close_matches(name, names, n=3)
    return (
        f"unknown DATA.FEATURE {name!r}{f'; did you mean {_one_of(near)}?' if near else ''}; known: those that `vitune "
        "list backbones` prints, timm:<name of a network of timm>, and hf:<folder or Hub name> of a checkpoint of "
        "transformers"
    )


def _one_of(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def check_size(image_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
    """Raises ValueError unless patches tile the image."""
    if any(side % patch or side <= 0 for side, patch in zip(image_size, patch_size, strict=True)):
        raise ValueError(
            f"images of {image_size[0]}x{image_size[1]} pixels cannot be cut into patches of "
            f"{patch_size[0]}x{patch_size[1]}: choose DATA.CROPSIZE (or DATA.IMAGE_SIZE) as a multiple of them"
        )
