"""What the look at the data says that its owner must know, each with the number that shows it."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...data.sources.base import DataError, printable
from .images import Images
from .look import Alike, Look
from .words import counted

FEW = 20  # images of a class; with fewer, what is measured says little of that class
UNEVEN = 10  # the largest class has so many times the images of the smallest
SAME = 0.5  # of a class's images have a near-duplicate in another: it is a copy
STILL = 0.95  # typical correlation of two images at random: all are alike
FEWEST = 10  # different pictures
SHOWN = 100  # pairs that are listed


@dataclass(frozen=True)
class Finding:
    """A code for programs, a sentence for people, and the number that shows it."""

    code: str
    text: str
    number: float


def findings(images: Images, look: Look, same: Alike, groups: np.ndarray) -> tuple[dict, list[Finding]]:
    """The part ``data`` of fit.json, and what to say.

    Args:
        images: those that can be decoded.
        groups: (M,) near-duplicates have the same number.

    Raises:
        DataError: there are too few different pictures to learn from.
    """
    learning = images.splits != "test"
    _require_enough(images, groups, learning)
    found: list[Finding] = []
    if broken := len(look.broken) + len(images.left_out):
        some = ", ".join(f"{name} ({why})" for name, why in [*look.broken, *images.left_out][:3])
        found.append(Finding("broken", f"{broken} file{'s are' if broken > 1 else ' is'} left out: {some}", broken))
    counts = np.bincount(images.labels[learning], minlength=len(images.class_names))
    found += _about_counts(images, counts)
    found += _about_pairs(images, same, groups, learning)
    return _data(images, look, same, groups, counts), found


def _require_enough(images: Images, groups: np.ndarray, learning: np.ndarray) -> None:
    count, kinds = int(learning.sum()), len(np.unique(groups[learning]))
    several = [label for label in np.unique(images.labels) if len(set(groups[learning & (images.labels == label)])) > 1]
    if images.groups:
        what = "the column group says which images belong together, such as those of a person, not their class"
        if kinds < FEWEST:
            raise DataError(
                f"there are too few groups: {count} images in {counted(kinds, 'group')}. At least {FEWEST} are needed, "
                f"since images of one group are learned from or held out together; {what}"
            )
        if len(several) < 2:
            raise DataError(f"there are too few groups: fewer than two classes have images of two groups; {what}")
    if kinds == 1:
        raise DataError(f"all {count} images show the same picture: there is nothing to learn from them")
    if kinds < FEWEST:
        raise DataError(
            f"there are too few images: {count}, which show {kinds} different pictures. At least {FEWEST} "
            "are needed, better 20 of each class"
        )
    if len(several) < 2:
        raise DataError("there are too few images: fewer than two classes have two different pictures")


def _about_counts(images: Images, counts: np.ndarray) -> list[Finding]:
    found, names = [], images.class_names
    if empty := [names[i] for i in np.flatnonzero(counts == 0)]:
        found.append(Finding("empty_class", f"no image of {', '.join(empty[:5])} to learn from", len(empty)))
    few = [i for i in np.argsort(counts, kind="stable") if 0 < counts[i] < FEW]
    if few:
        some = ", ".join(f"{names[i]} {counts[i]}" for i in few[:5]) + (", ..." if len(few) > 5 else "")
        which = f"{len(few)} of {len(names)} classes have fewer than {FEW} images ({some})"
        text = f"{which}: what is measured says little of them"
        found.append(Finding("few_images", text, int(counts[few[0]])))
    least = counts[counts > 0].min()
    if counts.max() >= UNEVEN * least:
        text = (
            f"the largest class has {counts.max() / least:.0f} times as many images as the smallest "
            f"({names[counts.argmax()]} {counts.max()}, {names[np.flatnonzero(counts == least)[0]]} {least}): "
            "the accuracy is mostly that of the large ones; see the accuracy of each class"
        )
        found.append(Finding("imbalance", text, float(counts.max() / least)))
    return found


def _about_pairs(images: Images, same: Alike, groups: np.ndarray, learning: np.ndarray) -> list[Finding]:
    found = []
    if not same.compared:
        text = f"{len(images):,} images are too many to compare pair by pair: only files were compared"
        found.append(Finding("not_compared", text, len(images)))
    elif same.typical >= STILL:
        text = f"all images are alike: two at random correlate by {same.typical:.3f} (median)"
        found.append(Finding("all_alike", text, same.typical))
    if not len(same.pairs):
        return found
    one, other = same.pairs.T
    across = images.labels[one] != images.labels[other]
    if across.any():
        i, j = same.pairs[across][0]
        text = (
            f"{across.sum()} pairs of images show the same picture under two labels, such as {_name(images, i)} and "
            f"{_name(images, j)}: one of the labels is wrong, and no classifier can get both right"
        )
        found.append(Finding("conflict", text, int(across.sum())))
        found += _copies(images, same.pairs[across])
    leaked = leaks(images, groups)
    if leaked.any():
        share = leaked.sum() / (~learning).sum()
        text = (
            f"{leaked.sum()} of {(~learning).sum()} test images ({100 * share:.1f} %) show a picture that is also "
            "among the images to learn from: the accuracy is given without them"
        )
        found.append(Finding("leak", text, int(leaked.sum())))
    within = ~across & learning[one] & learning[other]
    if within.any():
        text = (
            f"{within.sum()} pairs of images to learn from are near-duplicates ({same.exact[within].sum()} of them the "
            "same file): they stay together wherever images are held out, so that nothing is promised on their account"
        )
        found.append(Finding("duplicates", text, int(within.sum())))
    return found


def _copies(images: Images, pairs: np.ndarray) -> list[Finding]:
    """Classes most of whose images are in another class, too."""
    shared: dict[tuple[int, int], set[int]] = {}
    for i, j in (*pairs.tolist(), *pairs[:, ::-1].tolist()):
        shared.setdefault((int(images.labels[i]), int(images.labels[j])), set()).add(i)
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    found = []
    for (label, other), own in sorted(shared.items()):
        share = len(own) / counts[label]
        if share >= SAME and (label < other or (len(shared.get((other, label), ())) < SAME * counts[other])):
            name, twin = images.class_names[label], images.class_names[other]
            text = f"{100 * share:.0f} % of the images of {name} are also in {twin}: one class is a copy of the other"
            found.append(Finding("copied_class", text, share))
    return found


def leaks(images: Images, groups: np.ndarray) -> np.ndarray:
    """(M,) bool: test images that show a picture which is also among those to learn from."""
    test = images.splits == "test"
    return test & np.isin(groups, groups[~test])


def _data(images: Images, look: Look, same: Alike, groups: np.ndarray, counts: np.ndarray) -> dict:
    splits = Counter(images.splits.tolist())
    per_class = [
        {"name": name, **{split: int((of & (images.splits == split)).sum()) for split in splits}}
        for label, name in enumerate(images.class_names)
        for of in [images.labels == label]
    ]
    pairs = [
        {
            "a": _name(images, i),
            "b": _name(images, j),
            "similarity": round(float(similarity), 4),
            "exact": bool(exact),
            "labels": [images.class_names[images.labels[i]], images.class_names[images.labels[j]]],
            "splits": [str(images.splits[i]), str(images.splits[j])],
        }
        for (i, j), similarity, exact in zip(same.pairs, same.similarity, same.exact, strict=True)
    ]
    telling = sorted(pairs, key=lambda p: (p["labels"][0] == p["labels"][1], p["splits"][0] == p["splits"][1]))
    sides = {
        name: dict(
            zip(("smallest", "median", "largest"), np.quantile(side, (0, 0.5, 1)).astype(int).tolist(), strict=True)
        )
        for name, side in zip(("width", "height"), look.sizes.T, strict=True)
    }
    return {
        "root": str(images.root),
        "source": images.source,
        "kind": images.kind,
        "classes": images.class_names,
        "images": dict(splits),
        "per_class": per_class,
        "imbalance": float(counts.max() / max(1, counts[counts > 0].min())),
        "sizes": sides,
        "broken": [{"file": name, "why": why} for name, why in [*look.broken, *images.left_out]],
        "pictures": len(np.unique(groups)),
        "similar": {
            "compared": same.compared,
            "threshold": same.threshold,
            "typical": same.typical,
            "pairs": len(pairs),
            "exact": int(same.exact.sum()),
            "across_classes": sum(p["labels"][0] != p["labels"][1] for p in pairs),
            "across_splits": sum("test" in p["splits"] and p["splits"][0] != p["splits"][1] for p in pairs),
            "listed": telling[:SHOWN],
        },
        "leaked_test_images": int(leaks(images, groups).sum()),
        "notes": [printable(note) for note in images.notes],
    }


def _name(images: Images, i: int) -> str:
    return printable(images.files[i])
