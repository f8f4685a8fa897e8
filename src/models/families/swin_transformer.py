"""timm's SwinTransformer: attention in windows, maps of several sizes."""

from timm.models.swin_transformer import SwinTransformer

from .base import Family
from .stages import Stage


class Swin(Family):
    title = "Swin"
    network = SwinTransformer
    block = r"layers\.\d+\.blocks\.\d+"
    channels = "last"
    other_operations = r"patch_embed\.(proj|norm)|layers\.\d+\.downsample\.(norm|reduction)"

    def _stages(self, vit):
        return [
            Stage.module(vit, "patch_embed"),
            *(Stage.module(vit, f"layers.{i}") for i in range(len(vit.layers))),
            Stage.module(vit, "norm"),
            Stage("head", ("head",), lambda x: vit.head(x, pre_logits=True)),
        ]
