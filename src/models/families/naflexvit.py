"""timm's NaFlexVit: a ViT for images of any shape (SigLIP 2 NaFlex, RADIO); here all images have one size."""

from timm.models.eva import EvaBlock
from timm.models.naflexvit import NaFlexVit
from torch import Tensor

from .eva import Eva, leave_unrotated
from .stages import Stage, Tokens
from .vision_transformer import ViT


class NaFlex(ViT):
    title = "NaFlex"
    network = NaFlexVit
    operations = Eva.operations
    other_operations = r"embeds\.(proj|norm)"
    patches = "embeds"
    projection = r"embeds\.proj"
    class_token = "embeds.cls_token"
    residual = (*ViT.residual, EvaBlock)
    steps = ("forward_features", "forward_head", "_forward_embeds", "_pool")

    def tokens(self, vit, pool):
        rows, cols = vit.embeds.dynamic_feat_size(self.image_size(vit))
        patch = vit.embeds.patch_size
        return Tokens(vit.num_prefix_tokens, rows, cols, vit.embed_dim, len(vit.blocks), pool=pool, patch=patch)

    def admit(self, vit, tokens):
        if vit.rope is not None:
            for block in vit.blocks:
                leave_unrotated(block.attn)

    def can_change_pool(self, vit):
        return type(vit)._pool is NaFlexVit._pool

    def _stages(self, vit):
        if vit.patch_drop is not None:
            return []  # positions then depend on what was dropped
        grid = vit.embeds.dynamic_feat_size(self.image_size(vit))

        def block(i: int) -> Stage:
            def run(x: Tensor) -> Tensor:
                if vit.rope is None:
                    return vit.blocks[i](x)
                rope = vit.rope.get_embed(shape=grid)
                return vit.blocks[i](x, rope=rope[i] if vit.rope_is_mixed else rope)

            return Stage(f"blocks.{i}", (f"blocks.{i}", "rope"), run)

        return [
            Stage("embeds", ("embeds", "norm_pre"), lambda x: vit._forward_embeds(x, None, None, None)["patches"]),
            *(block(i) for i in range(len(vit.blocks))),
            Stage.module(vit, "norm"),
            Stage("pool", ("attn_pool",), vit._pool),
            Stage.module(vit, "fc_norm"),
            Stage.module(vit, "head_drop"),
        ]
