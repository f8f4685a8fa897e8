"""timm's SwinTransformer: attention in windows, maps of several sizes."""

from timm.models.swin_transformer import SwinTransformer

from .base import Family, Stage


class Swin(Family):
    title = "Swin"
    network = SwinTransformer
    timm_modules = ("swin_transformer",)
    block = r"layers\.\d+\.blocks\.\d+"
    operations = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    other_operations = r"patch_embed\.proj|layers\.\d+\.downsample\.(norm|reduction)"

    def entrance(self, vit, site):
        # Attention reads windows, the norm before it the whole map.
        return f"{site.removesuffix('mlp')}norm2" if site.endswith(".mlp") else ""

    def _stages(self, vit):
        return [
            Stage.module(vit, "patch_embed"),
            *(Stage.module(vit, f"layers.{i}") for i in range(len(vit.layers))),
            Stage.module(vit, "norm"),
            Stage("head", ("head",), lambda x: vit.head(x, pre_logits=True)),
        ]
