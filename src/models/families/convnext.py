"""timm's ConvNeXt: convolutions in place of attention, one norm in a block, images of any size."""

from timm.models.convnext import ConvNeXt as TimmConvNeXt

from .base import Family
from .stages import Stage


class ConvNeXt(Family):
    title = "ConvNeXt"
    network = TimmConvNeXt
    block = r"stages\.\d+\.blocks\.\d+"
    attentions = ()
    parts = {"norm1": ("norm",)}  # noqa: RUF012
    absent = ("attn", "norm2")
    norms = {"norm1": ("norm",), "norm2": ()}  # noqa: RUF012
    operations = ("conv_dw", "norm1", "mlp.fc1", "mlp.fc2")
    other_operations = r"stem\.[01]|stages\.\d+\.downsample\.[01]"
    others = "shortcut.*"
    patches = "stem"
    projection = r"stem\.0"
    final_norms = ("head.norm",)
    channels = "first"
    any_size = True

    def entrance(self, vit, site):
        return ""  # a convolution stands between the tokens and the norm

    def _stages(self, vit):
        return [
            Stage.module(vit, "stem"),
            *(Stage.module(vit, f"stages.{i}") for i in range(len(vit.stages))),
            Stage.module(vit, "norm_pre"),
            Stage("head", ("head",), lambda x: vit.head(x, pre_logits=True)),
        ]
