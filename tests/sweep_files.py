"""What the ready-made sweeps hold."""

import itertools
from dataclasses import replace

from src.tools.tune.points import points
from src.tools.tune.spec import Range


def number_of_runs(sweep) -> int:
    runs = 0
    for choices in itertools.product(*sweep.over.values()):
        axes = sweep.tune | {name: axis for choice in choices for name, axis in choice.tune.items()}
        tuned = len(points(axes, sweep)) if sweep.protocol == "select" else 1
        runs += len(sweep.seeds) + (tuned if tuned > 1 else 0)
    return runs


def shortened(sweep):
    """The same sweep with one task, all methods and the ends of every other axis."""

    def ends(axis):
        if isinstance(axis, Range):
            return axis
        own = any(choice.tune or "MODEL.TRANSFER_TYPE" in choice.settings for choice in axis)
        axis = [replace(choice, tune={name: ends(tuned) for name, tuned in choice.tune.items()}) for choice in axis]
        return axis if own or len(axis) < 3 else [axis[0], axis[-1]]

    over = {name: axis[:1] if name == "DATA.NAME" else ends(axis) for name, axis in sweep.over.items()}
    return replace(
        sweep, over=over, tune={name: ends(axis) for name, axis in sweep.tune.items()}, seeds=sweep.seeds[:1]
    )
