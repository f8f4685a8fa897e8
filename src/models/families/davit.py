"""timm's DaVit: blocks with attention in windows and blocks with attention between channels, in turn (DaViT)."""

from timm.models.davit import DaVit as TimmDaVit
from torch import nn

from .base import Family
from .stages import Stage


class DaViT(Family):
    title = "DaViT"
    network = TimmDaVit
    block = r"stages\.\d+\.blocks\.\d+\.(\d+|spatial_block|channel_block)"
    operations = (*Family.operations, "cpe1.proj", "cpe2.proj")
    other_operations = r"stem\.(conv|norm)|stages\.\d+\.downsample\.(norm|conv)"
    patches = "stem"
    projection = r"stem\.conv"
    final_norms = ("norm_pre", "head.norm")
    channels = "first"
    any_size = True

    def final_norm(self, vit, pooled):
        return "head.norm" if isinstance(vit.norm_pre, nn.Identity) else "norm_pre"

    def _stages(self, vit):
        return [
            Stage.module(vit, "stem"),
            *(Stage.module(vit, f"stages.{i}") for i in range(len(vit.stages))),
            Stage.module(vit, "norm_pre"),
            Stage("head", ("head",), lambda x: vit.head(x, pre_logits=True)),
        ]
