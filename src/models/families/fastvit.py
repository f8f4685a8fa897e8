"""timm's FastVit: convolutions, and in the last stage of some sizes attention (FastViT, MobileCLIP)."""

from timm.models.fastvit import FastVit

from .convolutional import Convolutional


class FastViT(Convolutional):
    title = "FastViT"
    network = FastVit
    block = r"stages\.\d+\.blocks\.\d+"
    attentions = ("token_mixer",)
    mlps = ("mlp",)
    absent = ("norm1", "norm2")
    sometimes_absent = ("attn",)
    others = r"token_mixer\..*conv.*|mlp\.conv\.conv"
    norms = {"norm1": ("norm", r"token_mixer\..*(bn|identity)"), "norm2": (r"mlp\.conv\.bn",)}  # noqa: RUF012
    projection = r"stem\.0\.conv_kxk\.0\.conv"
    chain = ("stem", "stages", "final_conv")

    def entrance(self, vit, site):
        return ""  # attention makes tokens of maps, and a convolution stands before the MLP

    def exit(self, block, branch):
        return f"{branch}.proj" if branch == "token_mixer" else branch  # tokens, where the branch returns maps
