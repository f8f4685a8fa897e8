"""timm's VisionTransformer: one sequence of tokens through all blocks (ViT, DeiT, CLIP, DINO, MAE, SigLIP, AIMv2)."""

from timm.models.vision_transformer import Block, ParallelThingsBlock, ResPostBlock, VisionTransformer
from torch import nn

from .base import THIRDS, Family, Rows
from .stages import Stage, Tokens


class ViT(Family):
    title = "ViT"
    network = VisionTransformer
    block = r"blocks\.\d+"
    attentions = ("attn", r"attns\.\d+\.attn")  # two at once: ParallelThingsBlock
    mlps = ("mlp", r"ffns\.\d+\.mlp")
    norms = {  # noqa: RUF012 - those inside: BEiT-3's
        "norm1": ("norm1", "in_norm", r"attns\.\d+\.norm", r"(attns\.\d+\.)?attn\.norm"),
        "norm2": ("norm2", r"ffns\.\d+\.norm", r"(ffns\.\d+\.)?mlp\.norm"),
    }
    final_norms = ("norm", "fc_norm")
    readout = ("head", "head_dist", "attn_pool")
    operations = (*Family.operations, "in_proj")
    sequence = True
    norm_after = (ResPostBlock,)
    residual = (Block, ParallelThingsBlock)
    steps = ("forward_features", "forward_head", "_pos_embed", "pool")
    norm_after_pool = "fc_norm"  # timm's argument for a norm after the average

    def tokens(self, vit, pool):
        rows, cols = vit.patch_embed.grid_size
        size = vit.patch_embed.img_size
        patch = (size[0] // max(1, rows), size[1] // max(1, cols))
        return Tokens(vit.num_prefix_tokens, rows, cols, vit.embed_dim, len(vit.blocks), pool=pool, patch=patch)

    def rows(self, block, role):
        return _joined(block, role) if hasattr(block, "in_proj") else super().rows(block, role)

    def part(self, block, role):
        if not hasattr(block, "in_proj"):
            return super().part(block, role)
        whole = {rows.name: rows.module for rows in _joined(block, role) if rows.count is None}
        return whole or super().part(block, role)

    def readers(self, vit, norm):
        block, _, own = norm.rpartition(".")
        return [f"{block}.in_proj"] if own == "in_norm" else []

    def final_norm(self, vit, pooled):
        if isinstance(vit.norm, nn.Identity):  # the norm follows the average, or there is none
            return pooled if not isinstance(vit.fc_norm, nn.Identity) else ""
        return "norm"

    def can_change_pool(self, vit):
        kind, own = type(vit), self.network
        return kind.pool is own.pool and kind.forward_head is own.forward_head

    def arguments(self, vit, image_size, depth):
        arguments = super().arguments(vit, image_size, depth) | {"depth": depth, "global_pool": vit.global_pool}
        norm_after_pool = not isinstance(vit.fc_norm, nn.Identity)
        if norm_after_pool != (vit.global_pool == "avg"):  # what timm makes of the pooling by itself
            arguments[self.norm_after_pool] = norm_after_pool
        return arguments

    def _stages(self, vit):
        return [
            Stage.module(vit, "patch_embed"),
            Stage("pos_embed", ("cls_token", "reg_token", "pos_embed", "pos_drop"), vit._pos_embed),
            Stage.module(vit, "patch_drop"),
            Stage.module(vit, "norm_pre"),
            *(Stage.module(vit, f"blocks.{i}") for i in range(len(vit.blocks))),
            Stage.module(vit, "norm"),
            Stage("pool", ("attn_pool",), vit.pool),
            Stage.module(vit, "fc_norm"),
            Stage.module(vit, "head_drop"),
        ]


def _joined(block: nn.Module, role: str) -> list[Rows]:
    """Roles in a ParallelScalingBlock: one map makes the hidden layer, q, k and v; one or two lead back."""
    hidden, dim, *_ = block.in_split
    starts = {"mlp.fc1": (0, hidden), "attn.qkv": (hidden, 3 * dim)}
    starts |= {third: (hidden + i * dim, dim) for i, third in enumerate(THIRDS)}
    if role in starts:
        return [Rows("in_proj", block.in_proj, *starts[role])]
    own = {"attn.proj": "attn_out_proj", "mlp.fc2": "mlp_out_proj"}
    if role not in own:
        return []
    name = own[role] if getattr(block, own[role], None) is not None else "out_proj"  # one map for both
    return [Rows(name, getattr(block, name))]
