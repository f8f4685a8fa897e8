"""timm's Xcit: attention between channels, convolutions between patches, then blocks of a class token (XCiT)."""

from timm.models.xcit import Xcit as TimmXcit
from torch import Tensor

from .base import Family
from .stages import Stage, pooled


class XCiT(Family):
    title = "XCiT"
    network = TimmXcit
    block = r"(cls_attn_)?blocks\.\d+"
    norms = {"norm1": ("norm1",), "norm2": ("norm3", r"local_mp\.bn", "norm2")}  # noqa: RUF012
    operations = (*Family.operations, "local_mp.conv1", "local_mp.conv2")
    projection = r"patch_embed\.proj\.\d\.0"
    other_operations = r"patch_embed\.proj\.\d\.[01]|pos_embed\.token_projection"
    steps = ("forward_features", "forward_head", "forward_cls")

    def entrance(self, vit, site):
        # The class token's MLP is added to normalised tokens.
        return site if site.startswith("cls_attn") and site.endswith(".mlp") else super().entrance(vit, site)

    def _stages(self, vit):
        rows, cols = (-(-side // vit.patch_embed.patch_size) for side in vit.patch_embed.img_size)

        def embed(x: Tensor) -> Tensor:
            x, _ = vit.patch_embed(x)
            if vit.pos_embed is not None:
                x = x + vit.pos_embed(len(x), rows, cols).flatten(2).transpose(1, 2)
            return vit.pos_drop(x)

        def block(i: int) -> Stage:
            return Stage(f"blocks.{i}", (f"blocks.{i}",), lambda x: vit.blocks[i](x, rows, cols))

        def read(x: Tensor) -> Tensor:
            return x if vit.cls_attn_blocks is None else vit.forward_cls(x)

        return [
            Stage("patch_embed", ("patch_embed", "pos_embed", "pos_drop"), embed),
            *(block(i) for i in range(len(vit.blocks))),
            Stage("cls_attn_blocks", ("cls_attn_blocks", "cls_token"), read),
            Stage.module(vit, "norm"),
            Stage("pool", (), lambda x: pooled(vit, x)),
            Stage.module(vit, "head_drop"),
        ]
