"""Drop-path (Huang et al., 2016, arXiv:1603.09382): in training, a branch of a block is left out for some images."""

from timm.layers import DropPath
from torch import nn

from .method import DoesNotFit
from .sites import blocks

PLACES = ("drop_path", "drop_path1", "drop_path2", "drop_path3")  # as timm's blocks call them


def set_drop_path(vit: nn.Module, rate: float) -> list[DropPath]:
    """Let block i of L drop its branches with probability rate * i / (L - 1), as timm has it; the modules that do.

    They act in training mode, which is theirs alone: the rest of a frozen ViT stays in eval mode.

    Raises:
        DoesNotFit: a block has no place for it.
    """
    made, found = [], places(vit)
    for i, own in enumerate(found.values()):
        for place in own:
            parent, _, name = place.rpartition(".")
            setattr(vit.get_submodule(parent), name, DropPath(rate * i / max(1, len(found) - 1)))
            made.append(vit.get_submodule(place))
    return made


def places(vit: nn.Module) -> dict[str, list[str]]:
    """The modules of every block that are, or may become, a drop-path.

    Raises:
        DoesNotFit: a block has none, or the blocks are not known.
    """
    found = {}
    for name, block in blocks(vit).items():
        found[name] = [f"{name}.{own}" for own, _ in block.named_modules() if own.rpartition(".")[2] in PLACES]
        if not found[name]:
            raise DoesNotFit(f"drop-path needs timm's blocks with a place for it, which {name} does not have")
    return found
