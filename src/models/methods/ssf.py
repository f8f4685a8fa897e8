"""SSF: scale and shift the output of every operation (Lian et al., 2022, arXiv:2210.08823).

Not ``FREQFIT ssf``, which is one scale and shift between blocks (scale_shift.py). As in the original code it starts
near the identity, not at it.
"""

from fvcore.common.config import CfgNode

from ...configs.keys import Section, one_of
from ..families import UNKNOWN, family_of
from ..method import DoesNotFit, Method
from ..sites import blocks
from ..taps import scale_shift_of


class SSF(Method):
    """D (4 + 22 L) parameters in an ordinary ViT."""

    paper = "Lian et al., 2022, arXiv:2210.08823"
    learns = "a scale and shift after every operation"
    folds = True
    adamw_lr = 0.003
    starts_pretrained = False
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Where the last pair sits in a ViT that averages its tokens: after the norm that follows the average
        # ("fc_norm"; it folds), or before the average ("norm"), where the original code has its final norm.
        cfg.POOLED_NORM = one_of("fc_norm", ["fc_norm", "norm"])
        return cfg

    def attach(self, cfg, vit, tokens):
        family = family_of(vit)
        for name, block in {} if family is UNKNOWN else blocks(vit).items():
            if unknown := family.unknown(block):
                raise DoesNotFit(f"it scales the output of every operation, and {name}.{unknown[0]} is unknown to it")
        last = family.final_norm(vit, cfg.POOLED_NORM)
        for name in [*family.operations_of(vit), *[last] * bool(last)]:
            self.after(name, scale_shift_of(vit.get_submodule(name), vit.num_features))

    def decays(self, name, param):
        return False  # all are vectors, which the original leaves alone
