"""timm's MultiScaleVit: attention pools its queries, keys and values with convolutions (MViT v2)."""

from timm.models.mvitv2 import MultiScaleVit

from .base import Family
from .stages import Stage, pooled

POOLS = ("attn.pool_q", "attn.pool_k", "attn.pool_v")
SHORTCUTS = ("shortcut_proj_attn", "shortcut_proj_mlp")  # past a branch that makes more channels


class MViTv2(Family):
    title = "MViT v2"
    network = MultiScaleVit
    block = r"stages\.\d+\.blocks\.\d+"
    norms = {"norm1": ("norm1", r"attn\.norm_[qkv]"), "norm2": ("norm2",)}  # noqa: RUF012
    operations = (*Family.operations, *POOLS, *SHORTCUTS)
    steps = ("forward_features", "forward_head")

    def exit(self, block, branch):
        return "attn.proj" if branch == "attn" else branch  # attention also returns the size of its map

    def _stages(self, vit):
        # In one: each stage passes on the size of its map, too.
        parts = ("patch_embed", "cls_token", "pos_embed", "stages", "norm")
        return [Stage("norm", parts, vit.forward_features), Stage("pool", (), lambda x: pooled(vit, x))]
