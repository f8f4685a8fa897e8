"""What the interval of an out-of-fold promise covers, measured: random draws of real images, and the rest as the truth.

    python -m src.tools.fit.coverage photos --images 100 --draws 200 --to coverage.json
    python -m src.tools.fit.coverage photos --images 200 --dim 64 DATA.CROPSIZE 112 MODEL.MODEL_ROOT weights

Every draw does what a fit does with that many images, on features that are computed once: choose and
judge heads by nested cross-validation, promise, fit the final head to the draw. The truth is the
accuracy of that head on all other images.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from ...engine.shared import Shared
from ...utils.io import write_json
from ...utils.logging import setup_logging
from ...utils.progress import tqdm
from .. import command
from .features import view
from .heads import average, choose, nested
from .images import open_images
from .look import alike, groups_of, look
from .networks import on_disk
from .promise import promise
from .settings import settings, value, write_list


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="FOLDER|CSV")
    parser.add_argument("--images", type=int, default=100, help="in a draw (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first draw's seed (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=0, help="project features at random to so many numbers, to be quick")
    parser.add_argument("--to", type=Path, help="a JSON file for every draw")
    command.add_settings(parser, "those of the networks")


def draw(
    views: list[np.ndarray], labels: np.ndarray, groups: np.ndarray, classes: int, images: int, seed: int
) -> dict[str, float]:
    """The promise of one draw, and the truth."""
    order = np.random.RandomState(seed).permutation(len(labels))
    some, rest = order[:images], order[images:]
    rest = rest[~np.isin(groups[rest], groups[some])]
    own = [x[some] for x in views]
    logits, _, _ = nested(own, labels[some], groups[some], classes, seed)
    promised = promise(logits.argmax(1) == labels[some], groups[some], "out-of-fold")
    choice = choose(own, labels[some], groups[some], classes, seed)
    x = views[choice.view]
    answers = average(x[some], labels[some], classes, choice.penalties, x[rest]).argmax(1)
    return {
        "expected": promised.expected,
        "low": promised.low,
        "high": promised.high,
        "truth": float((answers == labels[rest]).mean()),
        "images_of_truth": len(rest),
    }


def summary(draws: list[dict[str, float]], images: int) -> dict[str, float]:
    """Shares of draws whose truth is inside, below and above the interval, and what the intervals are like.

    ``variance``: of the expected accuracy around the truth, as a multiple of the binomial variance for ``images``.
    """
    expected, low, high, truth = (np.array([d[name] for d in draws]) for name in ("expected", "low", "high", "truth"))
    return {
        "draws": len(draws),
        "covered": float(((low <= truth) & (truth <= high)).mean()),
        "below": float((truth < low).mean()),
        "above": float((truth > high).mean()),
        "expected": float(expected.mean()),
        "truth": float(truth.mean()),
        "half_width": float(((high - low) / 2).mean()),
        "variance": float((expected - truth).var() / (truth.mean() * (1 - truth.mean()) / images)),
    }


def work(args: argparse.Namespace) -> int:
    setup_logging(only=__name__)
    images = open_images(args.data)
    with tempfile.TemporaryDirectory() as place:
        seen = look(images, Path(place), 4)
        images = images.take(np.flatnonzero(seen.usable))
        groups = groups_of(len(images), alike(seen).pairs, images.groups)
        names = write_list(images, range(len(images)), Path(place) / "all.txt")
        root, size = value(args.opts, "MODEL.MODEL_ROOT", "pretrained"), int(value(args.opts, "DATA.CROPSIZE", "0"))
        views = []
        for network in on_disk(root, size):
            if not network.why_not:
                more = [*args.opts, "MODEL.TRANSFER_TYPE", "linear"]
                cfg = settings(images, {"train": names}, network.name, network.size, more)
                views.append(view(cfg, Shared()).features)
    if args.dim:
        views = [projected(x, args.dim) for x in views]
    draws = []
    with tqdm(range(args.first, args.first + args.draws), "draws", unit="draw", leave=False) as bar:
        for seed in bar:
            draws.append(draw(views, images.labels, groups, len(images.class_names), args.images, seed))
            if args.to and (len(draws) % 10 == 0 or len(draws) == args.draws):
                about = {"data": args.data.name, "images": args.images, "dim": args.dim}
                write_json(args.to, about | summary(draws, args.images) | {"each": draws})
    found = summary(draws, args.images)
    print(", ".join(f"{name} {found[name]:.4g}" for name in found))
    return 0


def projected(features: np.ndarray, dim: int) -> np.ndarray:
    """(N, D) -> (N, dim) by a fixed random matrix, which keeps distances on average."""
    matrix = np.random.RandomState(0).randn(features.shape[1], dim) / np.sqrt(dim)
    return (features @ matrix).astype(np.float32)


def main(argv: list[str]) -> int:
    return command.run("fit.coverage", __doc__, add_options, work, argv, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
