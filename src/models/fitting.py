"""What to say where a method does not fit a network: which of both, why, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from fvcore.common.config import CfgNode
from torch import nn

from ..configs.keys import declared
from ..configs.methods import config_name
from ..utils.text import a_kind
from .families.stages import Tokens
from .method import DoesNotFit, Method

PARTS = ("TARGETS", "SITES", "PART")  # keys that choose where in a block a method acts


@contextmanager
def fitting(name: str, method: type[Method], keys: CfgNode, vit: nn.Module, tokens: Tokens | None) -> Iterator[None]:
    """A DoesNotFit inside becomes a ValueError that names the method and the network, and what to do.

    Args:
        keys: the method's.
    """
    try:
        yield
    except DoesNotFit as error:
        reason = str(error).rstrip(".!")
        network = (getattr(vit, "pretrained_cfg", None) or {}).get("architecture") or "this one"
        raise ValueError(
            f"method {name!r} does not fit the network ({network}, {a_kind(vit)}): {reason}. Choose another method or "
            f"backbone{_other_parts(name, method, keys, vit, tokens)}"
        ) from error


def _other_parts(name: str, method: type[Method], keys: CfgNode, vit: nn.Module, tokens: Tokens | None) -> str:
    """Where else in this network the method fits, as the end of a sentence; what else to do if it does nowhere."""
    choices = {key: fact.choices for key, fact in declared(method.defaults()).items() if key in PARTS}
    key = next(iter(choices), "")
    fit = [choice for choice in choices.get(key, ()) if _fits(method, keys, key, choice, vit, tokens)]
    return f", or MODEL.{config_name(name)}.{key} among {', '.join(fit)}" if fit else method.other_parts


def _fits(method: type[Method], keys: CfgNode, key: str, choice: str, vit: nn.Module, tokens: Tokens | None) -> bool:
    trial = keys.clone()
    trial[key] = choice if isinstance(trial[key], str) else [choice]
    try:
        method.require_parts(trial, vit, tokens)
    except ValueError:
        return False
    return True
