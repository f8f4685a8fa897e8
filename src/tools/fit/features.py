"""Features of all images by one pre-trained network, computed once and kept; and what neighbours say of them."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from ...engine.checkpoint import hash_of
from ...engine.device import choose_device
from ...engine.knn import votes
from ...engine.outputs import outputs
from ...engine.precision import set_backends
from ...engine.shared import Shared

NEIGHBOURS, TEMPERATURE = 10, 0.07
QUERIES = 512  # images whose neighbours are looked for at a time


@dataclass(frozen=True)
class View:
    """Features (N, D), float32, of all images by the network ``name``."""

    name: str
    size: int
    features: np.ndarray
    seconds: float


def view(cfg: CfgNode, shared: Shared) -> View:
    """The features of the images of DATA.TRAIN_LIST, in its order, as the head of a run sees them."""
    start = time.perf_counter()
    device = choose_device(cfg.DEVICE)
    set_backends(cfg, device)
    data = shared.data(cfg)
    loaders, _ = shared.loaders(cfg, data, device)
    model, _ = shared.model(cfg, len(data.class_names), device)
    model.eval()
    facts = {"weights": hash_of(model.vit.state_dict()), "model": cfg.MODEL.dump()}
    width = model.head.last_layer.in_features
    rows = outputs(cfg, "features for fit", model.features, width, loaders["train"], facts)
    return View(cfg.DATA.FEATURE, cfg.DATA.CROPSIZE, rows.numpy(), time.perf_counter() - start)


def neighbours_accuracy(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int) -> float:
    """The share of images whose class the weighted votes of their neighbours give; those of its group do not vote."""
    x = F.normalize(torch.from_numpy(features), dim=1)
    targets, own = torch.from_numpy(labels), torch.from_numpy(groups)
    right = 0
    for some in torch.arange(len(x)).split(QUERIES):
        similarity: Tensor = x[some] @ x.T
        similarity[own[some][:, None] == own[None]] = -1
        best = similarity.topk(min(NEIGHBOURS, len(x)))
        won = votes(best.values, targets[best.indices], classes, TEMPERATURE).argmax(1)
        right += (won == targets[some]).sum().item()
    return right / len(x)
