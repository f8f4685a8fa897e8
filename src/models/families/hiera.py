"""timm's Hiera: tokens in an order of their own, pooled between stages by attention that makes fewer of them."""

from timm.models.hiera import Hiera as TimmHiera

from .base import Family
from .stages import Stage


class Hiera(Family):
    title = "Hiera"
    network = TimmHiera
    block = r"blocks\.\d+"
    others = "proj"  # of tokens that go past attention, where they have more channels from then on
    operations = ("norm1", "proj", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    final_norms = ("head.norm",)
    steps = ("forward_features", "forward_head", "_pos_embed")

    def _stages(self, vit):
        if vit.patch_drop_rate:
            return []  # tokens are then left out at random
        positions = tuple(name for name, _ in vit.named_parameters(recurse=False))
        return [
            Stage.module(vit, "patch_embed"),
            Stage("pos_embed", positions, vit._pos_embed),
            Stage.module(vit, "unroll"),
            *(Stage.module(vit, f"blocks.{i}") for i in range(len(vit.blocks))),
            Stage("head", ("head",), lambda x: vit.head(x, pre_logits=True)),
        ]
