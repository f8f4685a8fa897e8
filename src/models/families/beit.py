"""timm's Beit: a ViT with relative positions in its attention (BEiT, BEiT v2)."""

import torch
from timm.models.beit import Beit as TimmBeit
from timm.models.beit import Block
from torch import Tensor

from .base import DoesNotFit
from .stages import Stage, pooled
from .vision_transformer import ViT


class BEiT(ViT):
    title = "BEiT"
    network = TimmBeit
    attentions = ("attn",)
    mlps = ("mlp",)
    norms = {"norm1": ("norm1",), "norm2": ("norm2", r"mlp\.norm")}  # noqa: RUF012
    readout = ("head",)
    norm_after = ()
    residual = (Block,)
    steps = ("forward_features", "forward_head")
    norm_after_pool = "use_fc_norm"

    def admit(self, vit, tokens):
        if vit.rel_pos_bias is not None or any(block.attn.window_size for block in vit.blocks):
            raise DoesNotFit("its attention adds relative positions between patches, and prompts have none")

    def can_change_pool(self, vit):
        return type(vit).forward_head is TimmBeit.forward_head

    def _stages(self, vit):
        def tokens(x: Tensor) -> Tensor:
            x = torch.cat((vit.cls_token.expand(len(x), -1, -1), x), dim=1)
            return vit.pos_drop(x if vit.pos_embed is None else x + vit.pos_embed)

        return [
            Stage.module(vit, "patch_embed"),
            Stage("pos_embed", ("cls_token", "pos_embed", "pos_drop"), tokens),
            *(_block(vit, i) for i in range(len(vit.blocks))),
            Stage.module(vit, "norm"),
            Stage("pool", (), lambda x: pooled(vit, x)),
            Stage.module(vit, "fc_norm"),
            Stage.module(vit, "head_drop"),
        ]


def _block(vit: TimmBeit, i: int) -> Stage:
    def run(x: Tensor) -> Tensor:
        shared = None if vit.rel_pos_bias is None else vit.rel_pos_bias()
        return vit.blocks[i](x, shared_rel_pos_bias=shared)

    return Stage(f"blocks.{i}", (f"blocks.{i}", "rel_pos_bias"), run)
