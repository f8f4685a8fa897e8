"""timm's Cait: blocks of patches, then blocks in which the class token reads them (CaiT)."""

from timm.models.cait import Cait as TimmCait
from torch import Tensor

from .base import Family
from .stages import Stage, pooled


class CaiT(Family):
    title = "CaiT"
    network = TimmCait
    block = r"blocks(_token_only)?\.\d+"
    others = r"attn\.proj_[lw]"  # of attention weights
    steps = ("forward_features", "forward_head", "forward_cls")

    def _stages(self, vit):
        def positions(x: Tensor) -> Tensor:
            return vit.pos_drop(x + vit.pos_embed)

        def read(x: Tensor) -> Tensor:
            return x if vit.blocks_token_only is None else vit.forward_cls(x)

        return [
            Stage.module(vit, "patch_embed"),
            Stage("pos_embed", ("pos_embed", "pos_drop"), positions),
            *(Stage.module(vit, f"blocks.{i}") for i in range(len(vit.blocks))),
            Stage("blocks_token_only", ("blocks_token_only", "cls_token"), read),
            Stage.module(vit, "norm"),
            Stage("pool", (), lambda x: pooled(vit, x)),
            Stage.module(vit, "head_drop"),
        ]
