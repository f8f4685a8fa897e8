"""Houlsby adapters: one after every attention and one after every MLP (Houlsby et al., 2019, arXiv:1902.00751).

The keys are those of adapter.py. In the unifying study (Mai et al., 2025, arXiv:2409.16434) they start at random
(``INIT xavier``); by default here their output starts at zero, at the pre-trained model, as in the paper.
"""

from fvcore.common.config import CfgNode

from .adapter import Bottlenecks


class Houlsby(Bottlenecks):
    """2 L (2 D width + width + D) parameters."""

    paper = "Houlsby et al., 2019, arXiv:1902.00751"
    learns = "bottlenecks of width {width} {place} every {branches}"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Bottlenecks.defaults()
        # Here both branches have one.
        cfg.SITES = ["attn", "mlp"]
        # The paper searches 8, 64 and 256 on GLUE.
        cfg.WIDTH = 64
        return cfg
