"""timm's MaxxVit: convolutions, then attention in windows and in grids or over the whole map (MaxViT, CoAtNet)."""

from timm.models.maxxvit import MaxxVit

from .base import THIRDS, DoesNotFit
from .convolutional import Convolutional


class MaxViT(Convolutional):
    title = "MaxViT"
    network = MaxxVit
    block = r"stages\.\d+\.blocks\.\d+"
    attentions = (r"(attn_(block|grid)\.)?attn", r"attn\.attn_(block|grid)")
    mlps = (r"(attn_(block|grid)\.|attn\.)?mlp",)
    absent = ("norm1", "norm2")
    sometimes_absent = ("attn", "mlp")
    others = r"(conv(\.\d)?\.)?(conv\d?_\w+|se(_early)?|shortcut|down|norm\d|mlp)(\..*)?|.*rel_pos\..*"
    norms = {  # noqa: RUF012
        "norm1": (
            r"(conv(\.\d)?\.)?pre_norm",
            r"(conv(\.\d)?\.)?norm\d?",
            r"attn(_block|_grid)?\.norm1",
            r"norm1\.norm",
        ),
        "norm2": (r"attn(_block|_grid)?\.norm2",),
    }
    projection = r"stem\.conv2"
    final_norms = ("norm", "head.norm")
    any_size = False
    chain = ("stem", "stages", "norm")
    no_operations = (r".*rel_pos\..*",)

    def rows(self, block, role):
        for place, attention in self.part(block, "attn").items():
            if role in THIRDS and getattr(attention, "head_first", False):
                raise DoesNotFit(f"q, k and v lie head by head in {place}.qkv: {role} cannot be adapted by itself")
        return super().rows(block, role)
