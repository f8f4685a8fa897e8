"""Methods that add nothing and train some of the ViT's own parameters, chosen by exact module name.

end2end: full fine-tuning. partial-k: the last k blocks (Yosinski et al., 2014, arXiv:1411.1792). tinytl-bias: every
bias (TinyTL, Cai et al., 2020, arXiv:2007.11622; BitFit, Ben Zaken et al., 2022, arXiv:2106.10199). cls: the class
token. The names are VPT's (Jia et al., 2022, arXiv:2203.12119).
"""

from fvcore.common.config import CfgNode
from torch import nn

from ..method import Method


class End2End(Method):
    """Every parameter trains, and the ViT's dropout and drop-path act."""

    vit_in_train_mode = True

    def trains(self, name, param):
        return True


class Partial(Method):
    """The last ``NUM_BLOCKS`` blocks train, with what normalises after them."""

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # How many of the last blocks train; "partial-4" is short for "partial" with 4.
        cfg.NUM_BLOCKS = 1
        # Whether the final norm trains too. VPT's supervised models: yes; its MoCo v3 models, by mistake: no.
        cfg.NORM = True
        return cfg

    @staticmethod
    def problems(cfg):
        return [] if cfg.NUM_BLOCKS >= 1 else [f"NUM_BLOCKS is {cfg.NUM_BLOCKS}; it must be at least 1"]

    def attach(self, cfg, vit, tokens):
        depth = len(vit.blocks)
        if depth < cfg.NUM_BLOCKS:
            raise ValueError(f"MODEL.PARTIAL.NUM_BLOCKS is {cfg.NUM_BLOCKS}, but the ViT has {depth} blocks")
        self.prefixes = tuple(f"blocks.{i}." for i in range(depth - cfg.NUM_BLOCKS, depth))
        if cfg.NORM:
            self.prefixes += ("norm.", "fc_norm.")

    def trains(self, name, param):
        return name.startswith(self.prefixes)


class Bias(Method):
    """Every bias of the ViT trains: patch embedding, norms, attention and MLP; D (11 L + 2) in an ordinary ViT."""

    def trains(self, name, param):
        return name.endswith("bias")


class ClassToken(Method):
    """The class token trains, from its pre-trained value or (REINIT) from nearly zero."""

    @staticmethod
    def defaults() -> CfgNode:
        cfg = CfgNode()
        # Start from N(0, 1e-6^2) instead of the pre-trained class token ("cls-reinit" is short for this).
        cfg.REINIT = False
        return cfg

    def attach(self, cfg, vit, tokens):
        if vit.cls_token is None:
            raise ValueError("method 'cls' trains the class token, and this ViT has none")
        if cfg.REINIT:
            nn.init.normal_(vit.cls_token, std=1e-6)

    def trains(self, name, param):
        return name == "cls_token"
