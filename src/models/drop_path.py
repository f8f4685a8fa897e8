"""Drop-path (Huang et al., 2016, arXiv:1603.09382): in training, a branch of a block is left out for some images."""

from timm.layers import DropPath
from torch import nn

from .sites import blocks

PLACES = ("drop_path", "drop_path1", "drop_path2", "drop_path3")  # as timm's blocks call them


def set_drop_path(vit: nn.Module, rate: float) -> list[DropPath]:
    """Let block i of L drop its branches with probability rate * i / (L - 1), as timm has it; the modules that do.

    They act in training mode, which is theirs alone: the rest of a frozen ViT stays in eval mode.

    Raises:
        ValueError: a block has no place for it.
    """
    made, modules = [], blocks(vit)
    for i, (name, block) in enumerate(modules.items()):
        places = [own for own, _ in block.named_modules() if own.rpartition(".")[2] in PLACES]
        if not places:
            raise ValueError(f"drop-path needs timm's blocks with a place for it, which {name} does not have")
        for place in places:
            parent, _, own = place.rpartition(".")
            setattr(block.get_submodule(parent), own, DropPath(rate * i / max(1, len(modules) - 1)))
            made.append(block.get_submodule(place))
    return made
