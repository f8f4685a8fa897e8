"""The classifier on the pooled features."""

import math

from torch import Tensor, nn


class Head(nn.Module):
    """(B, dim) -> logits (B, num_classes): ``num_hidden`` layers of width dim, then one linear map.

    ``init`` "vpt" (Jia et al., 2022, arXiv:2203.12119): the last weight is Kaiming normal over its outputs (std
    sqrt(2 / num_classes)) and its bias -log(99), which makes every class start at probability 0.01 under a sigmoid.
    "zero": both are zero, so that the first step sees every class alike (as RLRR, Dong et al., 2024, arXiv:2403.19067).
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
        if init == "zero":
            nn.init.zeros_(self.last_layer.weight)
            nn.init.zeros_(self.last_layer.bias)
        else:
            nn.init.kaiming_normal_(self.last_layer.weight, mode="fan_out")
            nn.init.constant_(self.last_layer.bias, -math.log(99))

    def forward(self, features: Tensor) -> Tensor:
        return self.last_layer(self.hidden(features))
