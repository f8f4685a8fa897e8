"""timm's SwinTransformerV2: Swin with norms after the branches and relative positions from a small MLP."""

from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block

from .swin_transformer import Swin


class SwinV2(Swin):
    title = "Swin V2"
    network = SwinTransformerV2
    others = r"attn\.cpb_mlp\.\d"  # of pairs of positions
    norm_after = (SwinTransformerV2Block,)
