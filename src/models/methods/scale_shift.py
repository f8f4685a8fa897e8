"""Scale-shift between blocks: FreqFit's ablation ``FREQFIT ssf`` (Ly & Nguyen, 2024, arXiv:2411.19297).

The idea is SSF's, once per block on all tokens instead of after every operation (that is ssf.py).
"""

import torch
from fvcore.common.config import CfgNode

from ...configs.keys import Section, one_of
from ..method import Method
from ..sites import blocks, grids
from ..taps import OnMaps, ScaleShift


class BlockScaleShift(Method):
    """x * scale + shift on every token, before each block and after the last: (L + 1) 2 D parameters."""

    paper = "Ly & Nguyen, 2024, arXiv:2411.19297"
    learns = "(`FREQFIT ssf`) a scale and shift of all tokens before every block"
    starts_pretrained = False
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # "paper": scale ~ N(1, 0.02), shift ~ N(0, 0.02), not the identity at the start; "identity": 1 and 0.
        cfg.INIT = one_of("paper", ["paper", "identity"])
        return cfg

    def attach(self, cfg, vit, tokens):
        sites = list(blocks(vit))
        for i, grid in enumerate(grids(vit, tokens, fixed=False)):
            tap = ScaleShift(grid.dim)
            if cfg.INIT == "identity":
                torch.nn.init.ones_(tap.scale)
                torch.nn.init.zeros_(tap.shift)
            if grid.channels:
                tap = OnMaps(tap, grid.channels)
            if i < len(sites):
                self.before(sites[i], tap)
            else:
                self.after(sites[-1], tap)
