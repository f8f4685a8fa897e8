"""SSF: scale and shift the output of every operation (Lian et al., 2022, arXiv:2210.08823).

Not ``FREQFIT ssf``, which is one scale and shift between blocks (scale_shift.py). As in the original code it starts
near the identity, not at it.
"""

import re

from fvcore.common.config import CfgNode
from torch import nn

from ..method import DoesNotFit, Method
from ..sites import BLOCK, blocks, final_norm
from ..taps import scale_shift_of

# What is scaled and shifted: in a ViT the patch convolution and each block's norms and linear maps (those inside
# attention and MLP only BEiT-3 has, the halves of fc1 only a SwiGLU); then also what Swin and ConvNeXt have between
# their stages.
IN_BLOCK = r"norm[12]?|attn\.(qkv|proj|norm)|mlp\.(fc[12]|fc1_[gx]|norm)|conv_dw"
OPERATION = re.compile(
    rf"patch_embed\.proj|stem\.[01]|{BLOCK.pattern}\.({IN_BLOCK})"
    r"|(layers|stages)\.\d+\.downsample\.(norm|reduction|[01])"
)


class SSF(Method):
    """D (4 + 22 L) parameters in an ordinary ViT."""

    paper = "Lian et al., 2022, arXiv:2210.08823"
    learns = "a scale and shift after every operation"
    folds = True
    adamw_lr = 0.003
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # Where the last pair sits in a ViT that averages its tokens: behind the norm that follows the average
        # ("fc_norm"; it folds), or before the average ("norm"), where the original code has its final norm.
        cfg.POOLED_NORM = "fc_norm"
        return cfg

    @staticmethod
    def problems(cfg):
        known = ("fc_norm", "norm")
        return [] if cfg.POOLED_NORM in known else [f"POOLED_NORM is {cfg.POOLED_NORM!r}; known: {', '.join(known)}"]

    def attach(self, cfg, vit, tokens):
        for name, module in vit.named_modules():
            inside = name.startswith(tuple(f"{block}." for block in blocks(vit)))
            if inside and isinstance(module, (nn.Linear, nn.Conv2d)) and not OPERATION.fullmatch(name):
                raise DoesNotFit(f"it scales what every operation gives, and does not know {name}")
        names = [n for n, m in vit.named_modules() if OPERATION.fullmatch(n) and not isinstance(m, nn.Identity)]
        for name in [*names, final_norm(vit, cfg.POOLED_NORM)]:
            self.after(name, scale_shift_of(vit.get_submodule(name), vit.num_features))

    def decays(self, name, param):
        return False  # all are vectors, which the original leaves alone
