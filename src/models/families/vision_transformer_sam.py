"""timm's VisionTransformerSAM: a ViT on maps, most of whose attention sees windows (Segment Anything's encoder)."""

from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from .base import Family
from .stages import Stage


class SAM(Family):
    title = "SAM"
    network = VisionTransformerSAM
    block = r"blocks\.\d+"
    other_operations = rf"{Family.other_operations}|neck\.\d"
    final_norms = ("neck", "head.norm")
    channels = "last"

    def final_norm(self, vit, pooled):
        """After the neck, which may be that norm, convolutions and norms, or nothing."""
        if isinstance(vit.neck, nn.Sequential):
            return ""  # among the operations
        return "head.norm" if isinstance(vit.neck, nn.Identity) else "neck"

    def _stages(self, vit):
        def positions(x: Tensor) -> Tensor:
            own = vit.pos_embed
            return vit.pos_drop(x if own is None else x + resample_abs_pos_embed_nhwc(own, x.shape[1:3]))

        return [
            Stage.module(vit, "patch_embed"),
            Stage("pos_embed", ("pos_embed", "pos_drop"), positions),
            Stage.module(vit, "patch_drop"),
            Stage.module(vit, "norm_pre"),
            *(Stage.module(vit, f"blocks.{i}") for i in range(len(vit.blocks))),
            Stage("neck", ("neck",), lambda x: vit.neck(x.permute(0, 3, 1, 2))),
            Stage("head", ("head",), lambda x: vit.head(x, pre_logits=True)),
        ]
