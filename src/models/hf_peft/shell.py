"""The shell that peft injects into: an empty tree with timm's names, whose leaves share the backbone's parameters.

The leaves have none of the backbone's hooks, so that every other method composes with what peft makes of them. The
parts of a fused map, such as q, k and v, may be leaves of their own.
"""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...utils.text import a_kind
from ..method import DoesNotFit
from ..sites import layout, maps, own_name, require_linear
from ..twin import twin
from .catalogue import quiet, tuners

logger = logging.getLogger(__name__)


class Part(nn.Linear):
    """Some output channels of a fused map, such as q: (..., in) -> (..., count). Its weight is sliced at every use."""

    def __init__(self, fused: nn.Linear, site: str, start: int, count: int):
        nn.Module.__init__(self)  # no weight of its own
        self.fused, self.site = (fused,), site
        self.in_features, self.out_features = fused.in_features, count
        self.rows = slice(start, start + count)

    @property
    def weight(self) -> Tensor:
        return self.fused[0].weight[self.rows]

    @property
    def bias(self) -> Tensor | None:
        bias = self.fused[0].bias
        return None if bias is None else bias[self.rows]


class Joined(nn.Module):
    """What all parts of a fused map give: (..., in) -> (..., out)."""

    def __init__(self, maps: list[nn.Module]):
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([linear(x) for linear in self.maps], dim=-1)


def leaf_of(op: nn.Module) -> nn.Module:
    """What peft gets for a module of the backbone."""
    return twin(op, {name: _with_values(param) for name, param in op._parameters.items()})


def _with_values(param: nn.Parameter | None) -> nn.Parameter | None:
    """Zeros for a parameter on the meta device: such a model is only counted, but peft computes while it injects."""
    if param is None or not param.is_meta:
        return param
    return nn.Parameter(torch.zeros(1, device="cpu").expand(param.shape))


def target_leaves(vit: nn.Module, targets: Iterable[str]) -> tuple[dict[str, nn.Module], list[str]]:
    """What peft may replace, by name, and the ends of the names of what it shall: twins of the modules that play these
    roles, and the parts of fused maps ("blocks.0.attn.q").

    Raises:
        DoesNotFit: a block lacks one of them, or a fused map is not linear.
    """
    leaves, ends = {}, {}
    for site, (op, rows) in maps(vit, targets).items():
        if not rows:
            leaves[site] = leaf_of(op)
            ends[own_name(vit, site)] = None
            continue
        fused, start, parent = leaf_of(require_linear(op, site)), 0, site.rpartition(".")[0]
        for part, count in layout(rows, op.out_features):
            name = f"{parent}.{part or f'other_{start}'}"
            leaves[name] = Part(fused, site, start, count)
            start += count
            if part:
                ends[own_name(vit, name)] = None
    return leaves, list(ends)


def all_leaves(vit: nn.Module) -> dict[str, nn.Module]:
    """Twins of all modules of the backbone that have weights and no parts."""
    return {
        name: leaf_of(op)
        for name, op in vit.named_modules()
        if not any(True for _ in op.children()) and any(True for _ in op.parameters(recurse=False))
    }


def shell_of(leaves: dict[str, nn.Module]) -> nn.Module:
    """A tree of empty modules with these leaves."""
    shell = nn.Module()
    for name, leaf in leaves.items():
        *path, last = name.split(".")
        node = shell
        for part in path:
            if part not in node._modules:
                node.add_module(part, nn.Module())
            node = node._modules[part]
        node.add_module(last, leaf)
    return shell


def inject(kind: str, config: Any, leaves: dict[str, nn.Module]) -> nn.Module:
    """The PeftModel of a shell with these leaves; the modules it replaced do not own the ViT's weights.

    Raises:
        ValueError: peft refuses, or changes the frozen weights.
    """
    from peft import get_peft_model

    _use_no_extension(config)
    params = [param for leaf in leaves.values() for param in _shared(leaf)]
    for param in params:  # TunedViT decides later what trains
        param.requires_grad = False
    before = [param.sum() for param in params]
    try:
        with quiet(), params[0].device:  # also of what is built on the meta device: see _with_values
            model = get_peft_model(shell_of(leaves), config)
    except Exception as error:  # peft's checks raise anything
        raise DoesNotFit(f"peft's {kind} cannot adapt it: {error}") from error
    if not all(torch.equal(param.sum(), was) for param, was in zip(params, before, strict=True)):
        raise ValueError(f"peft's {kind} changes the frozen weights with these arguments: not supported")
    for layer in list(model.modules()):
        if "base_layer" in layer._modules:  # still an attribute, but neither moved nor saved with the layer
            vars(layer)["base_layer"] = layer._modules.pop("base_layer")
    return model


def shape_of(leaf: nn.Module) -> tuple[type, torch.Size]:
    """All that decides what a tuner makes of a module."""
    return type(leaf), leaf.weight.shape


def one_of_every_shape(
    kind: str, arguments: dict[str, Any], leaves: dict[str, nn.Module]
) -> dict[tuple[type, torch.Size], nn.Module]:
    """What a tuner makes of one module of every shape among ``leaves``; of all of them, that takes peft seconds.

    Raises:
        DoesNotFit: peft refuses, or leaves one as it is.
    """
    some = {shape_of(leaf): name for name, leaf in leaves.items()}
    config = tuners()[kind](target_modules=list(some.values()), **arguments)
    made = inject(kind, config, {name: leaves[name] for name in some.values()}).base_model.model
    require_adapted(kind, made, {name: leaves[name] for name in some.values()})
    return {shape: made.get_submodule(name) for shape, name in some.items()}


def require_adapted(kind: str, shell: nn.Module, leaves: dict[str, nn.Module]) -> None:
    """Raises DoesNotFit if the tuner left one of its targets as it was."""
    if name := next((name for name, leaf in leaves.items() if shell.get_submodule(name) is leaf), ""):
        raise DoesNotFit(f"peft's {kind} does not adapt {name}, {a_kind(leaves[name])}")


def _shared(leaf: nn.Module) -> Iterable[nn.Parameter]:
    return (leaf.fused[0] if isinstance(leaf, Part) else leaf).parameters()


def _use_no_extension(config: Any) -> None:
    """BOFT without peft's CUDA extension, on every machine.

    peft would try to compile it, and silently use one butterfly factor where that fails: a model trained on one machine
    would not load on another.
    """
    if config.peft_type != "BOFT":
        return
    from peft.tuners.boft import layer

    layer._FBD_CUDA = False  # None would mean: not tried yet
    if config.boft_n_butterfly_factor > 1:
        logger.warning("note: BOFT with 1 butterfly factor: for more, peft needs a CUDA extension, not used here")
        config.boft_n_butterfly_factor = 1


def taps_of(shell: nn.Module, leaves: dict[str, nn.Module], replaced: list[str]) -> dict[str, nn.Module]:
    """What stands in the place of each site's operation."""
    taps = {}
    for name in replaced:
        if isinstance(leaves[name], Part):
            site = leaves[name].site
            parts = [other for other, leaf in leaves.items() if isinstance(leaf, Part) and leaf.site == site]
            taps.setdefault(site, Joined([shell.get_submodule(part) for part in parts]))
        else:
            taps[name] = shell.get_submodule(name)
    return taps
