"""How labels are derived from TFDS examples: the rules of VTAB-1k (Zhai et al., 2019, arXiv:1910.04867).

A rule reads fields of a tf.train.Example, whose nested features are flat lists: for three objects, ``objects/location``
has nine numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rule:
    """``label(values of the fields) -> label``.

    Attributes:
        fields: the fields of an example that are read.
        names: of the classes; empty if TFDS names them.
    """

    fields: tuple[str, ...]
    label: Callable[..., int]
    names: tuple[str, ...] = ()


def field(name: str = "label", names: Sequence[str] = ()) -> Rule:
    """The label is the value of a field."""
    return Rule((name,), lambda values: int(values[0]), tuple(names))


LABEL = field()


def interval(value: float, thresholds: Sequence[float]) -> int:
    """The largest i with thresholds[i] < value."""
    return int(np.flatnonzero(np.array(thresholds, np.float32) < np.float32(value))[-1])


CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)  # of the closest object, in CLEVR's units of depth
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)  # of the closest vehicle, in metres; 1000 means none
KITTI_VEHICLES = 3  # types below this: car, van, truck


def _clevr_distance(coords: Sequence[float]) -> int:
    depth = np.array(coords, np.float32).reshape(-1, 3)[:, 2].min()
    return interval(depth, CLEVR_DISTANCES)


def _kitti_distance(types: Sequence[int], locations: Sequence[float]) -> int:
    depth = np.array(locations, np.float32).reshape(-1, 3)[:, 2]
    vehicles = depth[np.array(types, int) < KITTI_VEHICLES]
    return interval(min([*vehicles, 1000.0]), KITTI_DISTANCES)


def binned(name: str, values: int, classes: int = 16) -> Rule:
    """``values`` values in ``classes`` bins, rounded down in float32: 40 values in 16 bins make unequal bins."""
    width = np.float32(values / classes)
    return Rule((name,), lambda value: int(np.float32(value[0]) // width), tuple(map(str, range(classes))))


CLEVR_COUNT = Rule(("objects/size",), lambda sizes: len(sizes) - 3, tuple(map(str, range(3, 11))))
CLEVR_DISTANCE = Rule(
    ("objects/pixel_coords",),
    _clevr_distance,
    ("up to 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "over 10"),
)
KITTI_DISTANCE = Rule(
    ("objects/type", "objects/location"),
    _kitti_distance,
    ("up to 8 m", "8 to 20 m", "over 20 m", "no vehicle"),
)
DSPRITES_LOCATION = binned("label_x_position", 32)
DSPRITES_ORIENTATION = binned("label_orientation", 40)
SMALLNORB_AZIMUTH = field("label_azimuth", [f"{20 * i} degrees" for i in range(18)])
SMALLNORB_ELEVATION = field("label_elevation", [f"{30 + 5 * i} degrees" for i in range(9)])
