"""Whether a file's tensors fit a network: all of them present, of the same shapes, and finite."""

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from .tensors import StateDict, tensors_of

LISTED = 10  # of each kind of fault

# Names that wrappers put before every name of a network, and keys under which training code keeps its state dict. The
# first key that a file has counts; averages come first, as in timm.
WRAPPERS = ("module.", "_orig_mod.", "model.")
KEYS = (
    *("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module", "net", "network", "encoder"),
)
DEEP = 5  # wrappers around wrappers


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], values: bool = True) -> str:
    """How ``state`` differs from the state dict ``own``, with counts and names; "" where it fits.

    Args:
        values: whether NaN and infinity are faults.
    """
    both = own.keys() & state.keys()
    shapes = {
        name: f"{tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in both
        if own[name].shape != state[name].shape
    }
    fits = both - shapes.keys()
    kinds = {name for name in fits if own[name].is_floating_point() and not state[name].is_floating_point()}
    numbers = {name for name in fits - kinds if values and state[name].is_floating_point()}
    faults = {
        "missing": [f"missing {name}" for name in own.keys() - state.keys()],
        "unexpected": [f"unexpected {name}" for name in state.keys() - own.keys()],
        "of another shape": [f"{name} is {shape}" for name, shape in shapes.items()],
        "not of floating point": [f"{name} is {state[name].dtype}" for name in kinds],
        "with NaN or infinity": [f"{name} holds NaN or infinity" for name in numbers if not _finite(state[name])],
    }
    if not any(faults.values()):
        return ""
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in faults.items() if names or kind in list(faults)[:3])
    details = "; ".join("; ".join(_some(sorted(names))) for names in faults.values() if names)
    return f"{counts} of {len(own)} tensors: {details}"


def _finite(tensor: Tensor) -> bool:
    return tensor.numel() == 0 or bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= LISTED else [*names[:LISTED], f"and {len(names) - LISTED} more like these"]


def unwrapped(content: Mapping) -> tuple[StateDict, list[str]]:
    """The state dict in what training code saved, and what it was wrapped in: ``(state, ["state_dict", "module."])``.

    Nothing is left out: a prefix comes off where all names have it.

    Raises:
        NotOnlyTensors: as ``tensors_of``.
    """
    around = []
    while len(around) < DEEP and (key := next((k for k in KEYS if isinstance(content.get(k), Mapping)), None)):
        content = content[key]
        around.append(key)
    state = tensors_of(content)
    while prefix := next((p for p in WRAPPERS if state and all(name.startswith(p) for name in state)), None):
        state = without_prefix(state, prefix)
        around.append(prefix)
    return state, around


def prefixes(own: Collection[str], state: Collection[str]) -> list[str]:
    """What may stand before the network's names in a file, such as "backbone."."""
    first = next(iter(own))
    return sorted({name.removesuffix(first) for name in state if name.endswith(f".{first}")})


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those that have it, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def require_fit(network: nn.Module, state: Mapping[str, Tensor], path: Path, called: str) -> None:
    """Raises ValueError unless ``state`` holds exactly what ``network`` needs.

    Args:
        called: the network's name, for the message.
    """
    own = network.state_dict()
    if not (wrong := misfits(own, state)):
        return
    hint = ""
    for prefix in prefixes(own, state):
        if not misfits(own, without_prefix(state, prefix)):
            hint = f". What it has as {prefix}* would fit: save those alone, without {prefix!r}"
    raise ValueError(f"{path} does not fit {called}: {wrong}{hint}")
