"""A second module with the parameters of a first."""

from collections.abc import Mapping

from torch import Tensor, nn


def twin(op: nn.Module, parameters: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A module that computes what ``op`` does by itself: with its very parameters and none of its hooks.

    Args:
        parameters: those to use in place of op's of the same names; others are not used.
    """
    other = object.__new__(type(op))
    nn.Module.__init__(other)
    own = {name: value for name, value in vars(op).items() if name not in vars(other)}
    own.pop("forward", None)  # what a tap computes in the place of op
    vars(other).update(own)
    other.training = op.training
    for name, param in op._parameters.items():
        given = (parameters or {}).get(name, param)
        other._parameters[name] = given if given is None or isinstance(given, nn.Parameter) else nn.Parameter(given)
    other._buffers.update(op._buffers)
    other._modules.update(op._modules)
    return other
