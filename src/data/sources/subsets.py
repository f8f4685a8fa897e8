"""Parts of a training set: those in a list, k images per class, or a number in all; and which part becomes val."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .base import DataError, Split, Wanted, cut, printable, shown, stratified
from .list_file import find_list, is_index_list, read_indices, read_list
from .text import composed

DRAWN = ("SHOTS", "TRAIN_LIST", "VAL_LIST", "TEST_LIST")  # the keys that ``draw`` supports


def draw(
    splits: dict[str, Split],
    wanted: Wanted,
    names: Sequence[str],
    folder: Path,
    subset: int = 0,
    val_size: float | None = None,
    order: np.ndarray | None = None,
) -> dict[str, Split]:
    """The splits with a smaller train, and with a val if there was none.

    First ``wanted.shots`` images of each class, or ``subset`` images in all; then val from these. Stratified, in the
    order of the data set, drawn with ``wanted.split_seed``. Lists replace all of this: see ``_listed``.

    Args:
        names: of the classes.
        folder: the data set's folder.
        val_size: number of val images, or, below 1, their share of the training images; None: ``wanted.val_fraction``,
            unless the set has validation images of its own.
        order: maps a list's indices to training images; None: indices count train as it is.

    Raises:
        DataError: there are too few images, or a list does not fit.
    """
    if wanted.lists:
        return _listed(splits, wanted, names, folder, order)
    train = splits["train"]
    if wanted.shots:
        train = train.take(few(train.labels, wanted.shots, wanted.split_seed, str(folder)))
    elif subset:
        if subset > len(train):
            raise DataError(f"{folder} has {len(train):,} training images, but {subset:,} are required")
        train = train.take(stratified(train.labels, subset, wanted.split_seed))
    if val_size:
        count = round(val_size * len(train)) if val_size < 1 else int(val_size)
        val = stratified(train.labels, count, wanted.split_seed)
    elif val_size is None and "val" not in splits and not wanted.shots:
        val = cut(train.labels, wanted.val_fraction, wanted.split_seed)  # the last image of a class trains
        if not len(val):
            return splits | {"train": train}
    else:
        return splits | {"train": train}
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


def _listed(
    splits: dict[str, Split], wanted: Wanted, names: Sequence[str], folder: Path, order: np.ndarray | None
) -> dict[str, Split]:
    """The splits defined by lists: indices count the set's own train, or test for a test list; names are of any split.

    Splits without a list stay as they are, except that train loses the images that become val or test.
    """
    whole, owner = _pooled(splits)
    chosen, finder = {}, None
    for name, text in wanted.lists.items():
        path = find_list(text, folder)
        if is_index_list(path):
            own = np.flatnonzero(owner == ("test" if name == "test" else "train"))
            own = own[order] if order is not None and name != "test" else own
            indices = own[read_indices(path, len(own), wanted.split_seed)]
        else:
            finder = finder or _Finder(whole, names, folder)
            indices = finder.find(path)
        if len(np.unique(indices)) < len(indices):
            raise DataError(f"{path} names {len(indices) - len(np.unique(indices)):,} images more than once")
        chosen[name] = indices
    _check_disjoint(chosen, whole, owner, wanted.lists)
    if "train" not in chosen:
        chosen["train"] = np.setdiff1d(np.flatnonzero(owner == "train"), np.concatenate(list(chosen.values())))
    return splits | {name: whole.take(indices) for name, indices in chosen.items()}


def _pooled(splits: dict[str, Split]) -> tuple[Split, np.ndarray]:
    """All images, and the split of each."""
    first, *others = splits.values()
    for other in others:
        first = first + other
    return first, np.repeat(list(splits), [len(split) for split in splits.values()])


def _check_disjoint(chosen: dict[str, np.ndarray], whole: Split, owner: np.ndarray, lists: dict[str, str]) -> None:
    """Raises DataError: an image is in two lists, or in a list and in a split that no list replaces."""
    for name, indices in chosen.items():
        for other in {"train", "val", "test"} - {name}:
            if other == "train" and other not in chosen:
                continue  # it loses the images that others take
            theirs = chosen[other] if other in chosen else np.flatnonzero(owner == other)
            if len(both := np.intersect1d(indices, theirs)):
                of = lists.get(other) or f"the data set's own {other} images: set DATA.{other.upper()}_LIST as well"
                raise DataError(
                    f"{len(both):,} images of {lists[name]} (DATA.{name.upper()}_LIST) are also in {of}; the first is "
                    f"{whole.keys[both[0]]}"
                )


class _Finder:
    """Finds images by their names in other people's lists: "<class>/<file>", or only the file name."""

    def __init__(self, whole: Split, names: Sequence[str], folder: Path):
        self.whole = whole
        self.names = names
        self.folder = folder
        self.by_name: dict[str, list[int]] = defaultdict(list)
        for i, key in enumerate(whole.keys):
            self.by_name[composed(os.path.basename(key))].append(i)
        self.classes: dict[int, int] = {}  # a list's label -> ours; the same for all lists of a set

    def find(self, path: Path) -> np.ndarray:
        """The images of a list's lines "<image> <label>"; the list may number classes differently.

        Raises:
            DataError: an image is missing or ambiguous, or a label stands for two classes.
        """
        indices, unknown = [], []
        for name, label in read_list(path):
            matches = self._matches(composed(printable(name)))
            if len(matches) != 1:
                unknown.append((name, len(matches)))
                continue
            ours = int(self.whole.labels[matches[0]])
            if self.classes.setdefault(label, ours) != ours:
                raise DataError(
                    f"{path}: label {label} stands for both {self.names[self.classes[label]]} and {self.names[ours]} "
                    f"({shown(name)}): its labels are not those of {self.folder}"
                )
            indices.append(matches[0])
        if len(set(self.classes.values())) < len(self.classes):
            raise DataError(f"{path} has two labels for one class of {self.folder}")
        if unknown:
            name, count = unknown[0]
            how = f"matches {count} images" if count else "is not an image"
            raise DataError(
                f"{len(unknown):,} images of {path} cannot be found by name in {self.folder}: {shown(name)} {how} "
                "of its train, val or test"
            )
        return np.array(indices, int)

    def _matches(self, name: str) -> list[int]:
        """The images with that name; a folder in it must be theirs, or their class."""
        folder, base = os.path.split(name)
        matches = self.by_name.get(base, [])
        parent = os.path.basename(folder)
        if parent not in ("", "."):
            matches = [i for i in matches if parent in self._folders(i)]
        if len(matches) > 1:
            matches = [i for i in matches if f"/{composed(self.whole.keys[i])}".endswith(f"/{name}")]
        return matches

    def _folders(self, i: int) -> tuple[str, str]:
        above = os.path.basename(os.path.dirname(self.whole.keys[i]))
        return composed(above), composed(self.names[self.whole.labels[i]])
