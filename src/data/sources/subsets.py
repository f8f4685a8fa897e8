"""Parts of a training set: k images of each class, so many in all, and what becomes validation of it."""

import numpy as np

from .base import DataError, Split, Wanted, stratified
from .list_file import read_indices

DRAWN = ("SHOTS", "TRAIN_LIST", "VAL_LIST")  # the keys that ``draw`` knows


def draw(
    splits: dict[str, Split],
    wanted: Wanted,
    subset: int = 0,
    val_size: float | None = None,
    where: str = "the data set",
) -> dict[str, Split]:
    """The splits with a smaller train, and with a val where there was none.

    First ``wanted.shots`` images of each class, or ``subset`` images in all, then val from these; stratified, in the
    order of the data set, drawn with ``wanted.split_seed``. Lists of indices into train replace all of that.

    Args:
        val_size: images of val, or below 1 their share of what trains; None: ``wanted.val_fraction``, unless the set
            has validation images of its own.

    Raises:
        DataError: there are fewer images than that.
    """
    train = splits["train"]
    if listed := {name: path for name, path in wanted.lists.items() if name in ("train", "val")}:
        chosen = {name: train.take(read_indices(path, len(train))) for name, path in listed.items()}
        return splits | {"train": train} | chosen
    if wanted.shots:
        train = train.take(few(train.labels, wanted.shots, wanted.split_seed, where))
    elif subset:
        if subset > len(train):
            raise DataError(f"{where} has {len(train):,} training images, but {subset:,} are wanted")
        train = train.take(stratified(train.labels, subset, wanted.split_seed))
    if val_size is None and "val" not in splits and not wanted.shots:
        val_size = wanted.val_fraction
    if not val_size:
        return splits | {"train": train}
    count = round(val_size * len(train)) if val_size < 1 else int(val_size)
    val = stratified(train.labels, count, wanted.split_seed)
    return splits | {"train": train.take(np.setdiff1d(np.arange(len(train)), val)), "val": train.take(val)}


def few(labels: np.ndarray, shots: int, seed: int, where: str) -> np.ndarray:
    """Sorted indices of ``shots`` images of each class.

    Raises:
        DataError: a class has fewer.
    """
    order, chosen = np.random.RandomState(seed).permutation(len(labels)), []
    for label in np.unique(labels):
        of_class = order[labels[order] == label][:shots]
        if len(of_class) < shots:
            raise DataError(f"{where} has {len(of_class)} training images of class {label}, but DATA.SHOTS is {shots}")
        chosen.append(of_class)
    return np.sort(np.concatenate(chosen))
