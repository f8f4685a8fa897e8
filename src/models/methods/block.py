"""Block Expansion: new blocks between frozen ones, copies that start as the identity (Bafghi et al., 2024).

"Parameter Efficient Fine-tuning of Self-supervised ViTs without Catastrophic Forgetting", arXiv:2404.17245. A copy's
attention and MLP end in zeros, so that at the start it passes its tokens on; then all of it trains. Other methods' taps
stay in the ViT's own blocks: prompts and filters reach a copy with the tokens, LoRA and adapters do not adapt it, and
VQT's queries do not read it.
"""

import copy

from fvcore.common.config import CfgNode
from timm.layers import DropPath
from torch import nn

from ...configs.keys import Section, whole
from ..families import family_of
from ..method import DoesNotFit, Method
from ..sites import LAST, blocks


class BlockExpansion(Method):
    """12 D^2 + 13 D parameters for each new block of an ordinary ViT."""

    paper = "Bafghi et al., 2024, arXiv:2404.17245"
    learns = "{blocks} between the ViT's own"
    folds = True
    adds_blocks = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # A new block after every SPLIT-th block, a copy of it; 0: as NUM_BLOCKS sets. The original code with 12 blocks
        # uses 11 (one copy, of the last but one block), 6, 4 and 3.
        cfg.SPLIT = whole(0, low=0)
        # Number of new blocks, if SPLIT is 0: after every (depth // NUM_BLOCKS)-th block. 1: after the last.
        cfg.NUM_BLOCKS = whole(1, low=1)
        return cfg

    @staticmethod
    def problems(cfg):
        if cfg.SPLIT > 0 and cfg.NUM_BLOCKS > 1:
            return [f"SPLIT is {cfg.SPLIT} and NUM_BLOCKS {cfg.NUM_BLOCKS}: set one of them, both say how many"]
        return []

    @classmethod
    def words(cls, cfg):
        blocks = "new blocks" if cfg.NUM_BLOCKS == 1 or cfg.SPLIT else f"{cfg.NUM_BLOCKS} new blocks"
        return super().words(cfg) | {"blocks": blocks}

    def attach(self, cfg, vit, tokens):
        own = list(blocks(vit).items())
        split = self._split(cfg, len(own))
        for name, block in own[split - 1 :: split]:
            self.after(name, identity_copy(vit, block, name))

    @staticmethod
    def _split(cfg, depth: int) -> int:
        if depth < cfg.SPLIT:
            raise ValueError(f"MODEL.BLOCK.SPLIT is {cfg.SPLIT}, more than the {depth} blocks: there would be no copy")
        if cfg.SPLIT:
            return cfg.SPLIT
        possible = sorted({depth // split for split in range(1, depth + 1)})
        if cfg.NUM_BLOCKS not in possible:
            raise ValueError(
                f"MODEL.BLOCK.NUM_BLOCKS is {cfg.NUM_BLOCKS}, but evenly spaced copies in {depth} blocks can be "
                f"{', '.join(map(str, possible))}"
            )
        return depth // cfg.NUM_BLOCKS


def identity_copy(vit: nn.Module, block: nn.Module, name: str) -> nn.Module:
    """A copy of a ViT's block, all of which trains, and which passes its tokens on unchanged until it has.

    It is called as the block is, with the same rotary positions and masks. It has none of the block's dropout and
    drop-path: those rates are VPT's for full fine-tuning, and the original Block Expansion uses none.

    Raises:
        DoesNotFit: zeros at the end of a branch do not make this kind of block the identity.
    """
    family = family_of(vit)
    last = [rows.name for role in LAST.values() for rows in family.rows(block, role)]
    if type(block) not in family.residual or not last:
        raise DoesNotFit(
            f"block expansion needs blocks that add {' and '.join(LAST.values())} to their tokens, and {name} is a "
            f"{type(block).__name__}: zeros would not make a copy of it the identity"
        )
    new = copy.deepcopy(block).requires_grad_(True)
    new.takes_context = True
    for op in last:
        for param in new.get_submodule(op).parameters():
            nn.init.zeros_(param)
    for module in new.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
    return new
