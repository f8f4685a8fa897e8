"""timm's VisionTransformer: one sequence of tokens through all blocks (ViT, DeiT, CLIP, DINO, MAE, SigLIP)."""

from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from .base import Family, Stage, Tokens


class ViT(Family):
    title = "ViT"
    network = VisionTransformer
    timm_modules = ("vision_transformer", "deit")
    block = r"blocks\.\d+"
    # Gate and value of timm's SwiGLU make the hidden layer together.
    parts = {"mlp.fc1": ("mlp.fc1_g", "mlp.fc1_x")}  # noqa: RUF012
    norms = {"norm1": ("norm1", "attn.norm"), "norm2": ("norm2", "mlp.norm")}  # noqa: RUF012 - those inside: BEiT-3's
    operations = ("norm1", "norm2", "attn.qkv", "attn.proj", "attn.norm", "mlp.fc1", "mlp.fc2", "mlp.norm")
    other_operations = r"patch_embed\.proj"
    final_norms = ("norm", "fc_norm")
    readout = ("head", "attn_pool")
    sequence = True
    steps = ("forward_features", "forward_head", "_pos_embed", "pool")

    def tokens(self, vit, pool):
        rows, cols = vit.patch_embed.grid_size
        patch = tuple(vit.patch_embed.patch_size)
        return Tokens(vit.num_prefix_tokens, rows, cols, vit.embed_dim, len(vit.blocks), pool=pool, patch=patch)

    def entrance(self, vit, site):
        block, branch = site.rsplit(".", 1)
        if isinstance(vit.get_submodule(block), ResPostBlock):  # its norms come after the branches
            return site
        norm = f"{block}.{'norm1' if branch == 'attn' else 'norm2'}"
        return norm if norm in dict(vit.named_modules()) else ""

    def final_norm(self, vit, pooled):
        return pooled if isinstance(vit.norm, nn.Identity) else "norm"  # empty where the norm follows the average

    def can_change_pool(self, vit):
        return type(vit).pool is VisionTransformer.pool

    def arguments(self, vit, image_size, depth):
        arguments = super().arguments(vit, image_size, depth) | {"depth": depth, "global_pool": vit.global_pool}
        norm_after_pool = not isinstance(vit.fc_norm, nn.Identity)
        if norm_after_pool != (vit.global_pool == "avg"):  # what timm makes of the pooling by itself
            arguments["fc_norm"] = norm_after_pool
        return arguments

    def _stages(self, vit):
        if vit.grad_checkpointing:
            return []
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
