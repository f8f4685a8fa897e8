"""Networks of no known family: what can be said of them without knowing their blocks."""

from torch import nn

from .base import NORMS, Family, activates
from .names import is_inside


class Unknown(Family):
    """Methods that ask for all linear maps, norms or biases work; those that ask for blocks, branches or tokens do not.

    timm's own names of the first convolution and of the classifier are all that is known.
    """

    title = "others"
    network = nn.Module
    block = r"(?!)"  # of nothing
    attentions = ()
    mlps = ()
    final_norms = ()
    readout = ()

    def stem(self, vit):
        first = (getattr(vit, "pretrained_cfg", None) or {}).get("first_conv") or ()
        return first if isinstance(first, str) else next(iter(first), "")

    def operations_of(self, vit):
        kinds = (nn.Linear, nn.Conv2d, *NORMS)
        found = [n for n, m in vit.named_modules() if isinstance(m, kinds) and any(True for _ in m.parameters())]
        found = [name for name in found if not activates(vit.get_submodule(name))]
        return [name for name in found if not any(is_inside(name, part) for part in classifiers(vit))]

    def final_norm(self, vit, pooled):
        return ""  # it is among the operations

    def linear_maps(self, vit: nn.Module) -> dict[str, nn.Module]:
        """All linear maps by name, but for the classifier, in the network's own order."""
        spare = classifiers(vit)
        return {
            name: module
            for name, module in vit.named_modules()
            if isinstance(module, nn.Linear) and not any(is_inside(name, part) for part in spare)
        }


def classifiers(vit: nn.Module) -> tuple[str, ...]:
    """timm's names of what is replaced by a new head."""
    names = (getattr(vit, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
