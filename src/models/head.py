"""The classifier on the pooled features."""

import math

from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F


def build_head(dim: int, num_classes: int, cfg: CfgNode, start: dict[str, Tensor] | None = None) -> nn.Module:
    """The head that the node ``MODEL`` describes, on features of width ``dim``; with no classes features pass through.

    Args:
        start: the state of a ``ZeroShotHead``, which MODEL.HEAD_INIT zero_shot starts from.

    Raises:
        ValueError: it is missing, or was made for features of another width.
    """
    if not num_classes:
        return nn.Identity()
    if cfg.HEAD_INIT != "zero_shot":
        return Head(dim, num_classes, cfg.MLP_NUM, "linear" if cfg.HEAD_INIT == "auto" else cfg.HEAD_INIT)
    if not start:
        raise ValueError(
            "MODEL.HEAD_INIT zero_shot starts from the text features of a run's class names: it is for runs with a "
            "backbone clip_*, not for a ViT in memory"
        )
    embed_dim, takes = start["projection.weight"].shape
    if (takes, len(start["last_layer.bias"])) != (dim, num_classes):
        raise ValueError(
            f"the zero-shot head is for {takes} features and {len(start['last_layer.bias'])} classes, this model has "
            f"{dim} and {num_classes}"
        )
    head = ZeroShotHead(dim, embed_dim, num_classes)
    head.load_state_dict(start)
    return head


def _vpt(linear: nn.Linear) -> None:
    nn.init.kaiming_normal_(linear.weight, mode="fan_out")
    nn.init.constant_(linear.bias, -math.log(99))


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def _trunc_normal(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)


# MODEL.HEAD_INIT -> what it does to a new nn.Linear.
STARTS = {"vpt": _vpt, "zero": _zero, "linear": lambda linear: None, "trunc_normal": _trunc_normal}


class Head(nn.Module):
    """(B, dim) -> logits (B, num_classes): ``num_hidden`` layers of width dim, then one linear map.

    ``init`` "vpt" (Jia et al., 2022, arXiv:2203.12119): the last weight is Kaiming normal over its outputs (std
    sqrt(2 / num_classes)) and its bias -log(99), which makes every class start at probability 0.01 under a sigmoid.
    "zero": both are zero, so that the first step sees every class alike (as RLRR, Dong et al., 2024, arXiv:2403.19067).
    "linear": as torch starts nn.Linear, U(-1/sqrt(dim), 1/sqrt(dim)). "trunc_normal": std 0.02, the bias zero.
    """

    def __init__(self, dim: int, num_classes: int, num_hidden: int = 0, init: str = "vpt"):
        super().__init__()
        layers = []
        for _ in range(num_hidden):
            linear = nn.Linear(dim, dim)
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            layers += [linear, nn.ReLU(), nn.BatchNorm1d(dim), nn.Dropout(0.1)]
        self.hidden = nn.Sequential(*layers)
        self.last_layer = nn.Linear(dim, num_classes)
        STARTS[init](self.last_layer)

    def forward(self, features: Tensor) -> Tensor:
        return self.last_layer(self.hidden(features))

    @property
    def is_linear(self) -> bool:
        """Whether one linear map is all of it."""
        return not len(self.hidden)


class ZeroShotHead(nn.Module):
    """(B, dim) -> logits (B, num_classes): cosines with a text per class, in the space that CLIP's towers share.

    last_layer(f / |f|) with f = projection(features). The rows of ``last_layer`` start as text features times CLIP's
    logit scale, its bias at zero, and all of it trains, as in the unifying study (Mai et al., 2025, arXiv:2409.16434).
    Where the values come from: zero_shot.py.
    """

    is_linear = False

    def __init__(self, dim: int, embed_dim: int, num_classes: int):
        super().__init__()
        self.projection = nn.Linear(dim, embed_dim, bias=False)
        self.last_layer = nn.Linear(embed_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.projection(features), dim=-1))
