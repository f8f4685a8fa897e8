"""SSF: scale and shift the output of every operation (Lian et al., 2022, arXiv:2210.08823).

Not ``FREQFIT ssf``, which is one scale and shift between blocks (scale_shift.py). As in the original code it starts
near the identity, not at it.
"""

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..method import Method, normal


class ScaleShift(nn.Module):
    """y * scale + shift, per channel; channels last, or first for the patch convolution's (B, D, rows, cols)."""

    def __init__(self, channels: int, channels_first: bool = False):
        super().__init__()
        shape = (channels, 1, 1) if channels_first else (channels,)
        self.scale = normal(shape, 1.0, 0.02)
        self.shift = normal(shape, 0.0, 0.02)

    def forward(self, y: Tensor) -> Tensor:
        return y * self.scale + self.shift


class SSF(Method):
    """D (4 + 22 L) parameters in an ordinary ViT."""

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
        self.after("patch_embed.proj", ScaleShift(tokens.dim, channels_first=True))
        for i, block in enumerate(vit.blocks):
            for op in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                channels = getattr(block.get_submodule(op), "out_features", tokens.dim)
                self.after(f"blocks.{i}.{op}", ScaleShift(channels))
        final = "norm" if not isinstance(vit.norm, nn.Identity) else cfg.POOLED_NORM
        self.after(final, ScaleShift(tokens.dim))
