"""AdaptFormer: scaled bottlenecks of width 64 beside every MLP (Chen et al., 2022, arXiv:2205.13535).

The keys are those of adapter.py. The adapter reads the tokens before the MLP's norm. As in the unifying study (Mai et
al., 2025, arXiv:2409.16434) its output passes LayerScale (DINOv2) with the MLP's. It shares the MLP's drop-path, where
the study draws a second one and the paper has none; that matters only where the ViT trains (``end2end``).
"""

from fvcore.common.config import CfgNode

from .adapter import Bottlenecks


class AdaptFormer(Bottlenecks):
    """L (2 D width + width + D) parameters."""

    paper = "Chen et al., 2022, arXiv:2205.13535"
    learns = "scaled bottlenecks of width {width} {place} every {branches}"
    adamw_lr = 0.005

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Bottlenecks.defaults()
        # The paper's best width.
        cfg.WIDTH = 64
        # The paper's best scale, fixed.
        cfg.SCALE = 0.1
        # The paper's adapter is a path beside the MLP.
        cfg.MODE = "parallel"
        # The paper's adapter reads the tokens before the MLP's norm.
        cfg.INPUT = "residual"
        # The paper's activation.
        cfg.ACTIVATION = "relu"
        # The paper's start: the output is zero.
        cfg.INIT = "lora_kaiming"
        # As in the paper's code.
        cfg.DROPOUT = 0.1
        return cfg
