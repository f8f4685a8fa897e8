"""SOLVER.OPTIMIZER lbfgs: the head as a logistic regression on frozen features, with a validated penalty.

The same solution as scikit-learn's LogisticRegression with the penalty that is best on validation images. There is
nothing to tune, such as a learning rate that would suit one backbone's features and not another's.
"""

import logging
import time

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.loader import Loader
from ..models.memo import Memo
from ..models.vit_models import TunedViT
from ..utils import distributed
from ..utils.io import write_json_lines
from ..utils.progress import tqdm
from .evaluator import evaluate
from .features import reuse_features
from .precision import autocast
from .probe import LAST_STEPS, fit, held_out, logits
from .results import RunFolder
from .trackers import Trackers

logger = logging.getLogger(__name__)

# Of mean cross-entropy + penalty / 2 |W|^2 on features scaled to a standard deviation of 1 over all channels; from
# strong to weak, since each fit starts from the previous one.
PENALTIES = tuple(10.0 ** (power / 2) for power in range(2, -15, -1))
STEPS = 200  # maximum L-BFGS steps while comparing penalties
WORSE = 4  # stop the search after this many weaker penalties in a row without improvement


def fit_head(
    cfg: CfgNode,
    model: TunedViT,
    loaders: dict[str, Loader],
    run: RunFolder,
    trackers: Trackers | None = None,
    memo: Memo | None = None,
) -> dict:
    """Fit ``model.head`` to the images of ``loaders["train"]``; returns the training part of the result, as ``train``.

    The penalty minimises the cross-entropy on ``loaders["val"]`` or, without it, on a stratified fifth of the training
    images; the head is then fitted to all training images. With SOLVER.PENALTIES it is the average of those for these
    penalties. Deterministic.
    """
    start, amp = time.perf_counter(), autocast(cfg, loaders["train"].device)
    mine = {name: loaders[name] for name in ("train", "val") if name in loaders}
    network, mine = reuse_features(cfg, model, mine, amp, memo)
    features = {name: _features(network, loader, amp) for name, loader in mine.items()}
    seconds = {"features": time.perf_counter() - start, "first_step": 0.0}
    start = time.perf_counter()
    mean, scale = features["train"][0].mean(0), features["train"][0].std().clamp(min=1e-12)
    scaled = {name: ((x - mean) / scale, labels) for name, (x, labels) in features.items()}
    if given := cfg.SOLVER.PENALTIES:
        weight, loss = _averaged(scaled["train"], given, model.num_classes)
        penalty = {"value": given, "chosen_on": "SOLVER.PENALTIES"}
    else:
        weight, value, loss = _fit(scaled["train"], scaled.get("val"), model.num_classes)
        penalty = {"value": value, "chosen_on": "val" if "val" in scaled else "a fifth of train"}
    last = model.head.last_layer
    with torch.no_grad():
        last.weight.copy_(weight[:, :-1] / scale)
        last.bias.copy_(weight[:, -1] - last.weight @ mean)
    seconds["train"] = time.perf_counter() - start
    start = time.perf_counter()
    val = evaluate(network, mine["val"], amp).as_dict() if "val" in mine else None
    seconds["validate"] = time.perf_counter() - start
    images = len(features["train"][1])
    row = {"epoch": 1, "loss": loss, "lr": 0.0, "seconds": seconds["train"]}
    row |= {f"val_{name}": value for name, value in (val or {}).items()}
    if distributed.is_first():
        write_json_lines(run.metrics, [row])
    if trackers:
        trackers.epoch(row)
    reached = f", val {100 * val['top1']:.2f} %" if val else ""
    logger.info(
        "logistic regression on %s images: penalty %s, loss %.4g%s", f"{images:,}", penalty["value"], loss, reached
    )
    return {
        "epochs": 1,
        "steps": 1,
        "epoch_used": 1,
        "train_loss": loss,
        "rows": [row],
        "val": val,
        "penalty": penalty | {"feature_std": scale.item()},
        "train_images_per_second": None,
        "seconds": seconds,
    }


@torch.no_grad()
def _features(network: nn.Module, loader: Loader, amp: torch.autocast) -> tuple[Tensor, Tensor]:
    """Features (N, D) of all images in order, in float32, and their labels (N,)."""
    network.eval()
    batches = []
    with tqdm(desc="features", total=len(loader.labels), unit="img", delay=1, leave=False) as bar:
        for images, labels in loader.in_order():
            with amp:
                batches.append((network.features(images).float(), labels))
            bar.update(len(labels))
    return torch.cat([x for x, _ in batches]), torch.cat([labels for _, labels in batches])


def _fit(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor] | None, num_classes: int) -> tuple:
    """The weights (num_classes, D + 1), the selected penalty and the training loss."""
    some, judge = train, val
    if judge is None:
        held = held_out(train[1])
        some, judge = ([tensor[which] for tensor in train] for which in (~held, held))
    best = torch.inf
    chosen = PENALTIES[0]
    worse = 0
    weight = chosen_weight = train[0].new_zeros(num_classes, train[0].shape[1] + 1)
    with tqdm(desc="logistic regression", total=len(PENALTIES) + 1, unit="fit", delay=1, leave=False) as bar:
        for penalty in PENALTIES:
            weight = fit(*some, penalty, weight, STEPS)
            loss = F.cross_entropy(logits(weight, judge[0]), judge[1]).item()
            bar.update()
            worse = 0 if loss < best else worse + 1
            if loss < best:
                best = loss
                chosen = penalty
                chosen_weight = weight
            if worse == WORSE:
                break
        weight = fit(*train, chosen, chosen_weight, LAST_STEPS)
        bar.update()
    return weight, chosen, F.cross_entropy(logits(weight, train[0]), train[1]).item()


def _averaged(train: tuple[Tensor, Tensor], penalties: list[float], num_classes: int) -> tuple[Tensor, float]:
    """The mean of the weights for every penalty, which averages their logits, and the training loss."""
    weight = train[0].new_zeros(num_classes, train[0].shape[1] + 1)
    weights = []
    for penalty in sorted(penalties, reverse=True):
        weight = fit(*train, penalty, weight, LAST_STEPS)
        weights.append(weight)
    weight = torch.stack(weights).mean(0)
    return weight, F.cross_entropy(logits(weight, train[0]), train[1]).item()
