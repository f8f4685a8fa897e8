"""SSF: scale and shift the output of every operation (Lian et al., 2022, arXiv:2210.08823).

Not ``FREQFIT ssf``, which is one scale and shift between blocks (scale_shift.py). As in the original code it starts
near the identity, not at it.
"""

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
    def attach(self, cfg, vit, tokens):
        self.after("patch_embed.proj", ScaleShift(tokens.dim, channels_first=True))
        for i, block in enumerate(vit.blocks):
            for op in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                channels = getattr(block.get_submodule(op), "out_features", tokens.dim)
                self.after(f"blocks.{i}.{op}", ScaleShift(channels))
        final = "norm" if not isinstance(vit.norm, nn.Identity) else "fc_norm"
        self.after(final, ScaleShift(tokens.dim))
