"""Methods that add nothing and train some of the ViT's own parameters, chosen by exact module name.

end2end: full fine-tuning. partial-k: the last k blocks (Yosinski et al., 2014, arXiv:1411.1792). tinytl-bias: every
bias (TinyTL, Cai et al., 2020, arXiv:2007.11622; BitFit, Ben Zaken et al., 2022, arXiv:2106.10199). cls: the class
token. The names are VPT's (Jia et al., 2022, arXiv:2203.12119).

layernorm, attention_tuning, mlp_tuning and block_tuning are from the unifying study (Mai et al., 2025,
arXiv:2409.16434). They are not called attention, mlp and block, because ``block`` is Block Expansion's name in VPT-side
code. The study's own code finds blocks by substring, so that its block 1 trains 10 and 11 too.
"""

from fvcore.common.config import CfgNode
from torch import nn

from ...configs.keys import Section, flag, one_of, whole, wholes
from ...utils.text import a_kind
from ..families import UNKNOWN, family_of
from ..method import DoesNotFit, Method, listed
from ..sites import blocks, norm_parameters


class End2End(Method):
    """Every parameter trains, and the ViT's dropout and drop-path act."""

    learns = "every weight"
    adamw_lr = 5e-5  # as is usual for pre-trained weights themselves; not measured here
    folds = True
    for_any_backbone = True

    vit_in_train_mode = True

    def trains(self, name, param):
        return True


class Partial(Method):
    """The last ``NUM_BLOCKS`` blocks train, with what normalises after them."""

    paper = "Yosinski et al., 2014, arXiv:1411.1792"
    learns = "the last {blocks}{norm}"
    adamw_lr = 1e-4  # as is usual for pre-trained weights themselves; not measured here
    folds = True
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # How many of the last blocks train; "partial-4" is short for "partial" with 4.
        cfg.NUM_BLOCKS = whole(1, low=1, unit="blocks")
        # Whether the final norm trains too. VPT's supervised models: yes; its MoCo v3 models, by mistake: no.
        cfg.NORM = flag(True)
        return cfg

    @classmethod
    def words(cls, cfg):
        blocks = "block, or k blocks (`partial-<k>`)," if cfg.NUM_BLOCKS == 1 else f"{cfg.NUM_BLOCKS} blocks"
        return super().words(cfg) | {"blocks": blocks, "norm": " and the final norm" if cfg.NORM else ""}

    def attach(self, cfg, vit, tokens):
        names = list(blocks(vit))
        if len(names) < cfg.NUM_BLOCKS:
            raise ValueError(f"MODEL.PARTIAL.NUM_BLOCKS is {cfg.NUM_BLOCKS}, but the ViT has {len(names)} blocks")
        self.prefixes = tuple(f"{name}." for name in names[-cfg.NUM_BLOCKS :])
        if cfg.NORM:
            self.prefixes += tuple(f"{norm}." for norm in family_of(vit).final_norms)

    def trains(self, name, param):
        return name.startswith(self.prefixes)


class Bias(Method):
    """Every bias of the ViT trains: patch embedding, norms, attention and MLP; D (11 L + 2) in an ordinary ViT."""

    paper = "Ben Zaken et al., 2022, arXiv:2106.10199"
    learns = "every bias"
    folds = True
    for_any_backbone = True

    def trains(self, name, param):
        return name.endswith("bias")


class ClassToken(Method):
    """The class token trains, from its pre-trained value or (REINIT) from nearly zero."""

    paper = "Jia et al., 2022, arXiv:2203.12119"
    learns = "the class token"
    folds = True
    for_any_backbone = True

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # Start from N(0, 1e-6^2) instead of the pre-trained class token ("cls-reinit" is short for this).
        cfg.REINIT = flag(False)
        return cfg

    def attach(self, cfg, vit, tokens):
        family = family_of(vit)
        self.token, token = family.class_token, family.class_token_of(vit)
        if token is None:
            known = "there is none" if family is not UNKNOWN else f"nothing in {a_kind(vit)} is called {self.token}"
            raise DoesNotFit(f"it trains the class token, and {known}")
        if cfg.REINIT:
            nn.init.normal_(token, std=1e-6)

    def trains(self, name, param):
        return name == self.token


class NormTuning(Method):
    """Every norm trains, weight and bias: 2 D (2 L + 1) parameters in an ordinary ViT, 2 D more before the blocks."""

    paper = "Mai et al., 2025, arXiv:2409.16434"
    learns = "every norm"
    folds = True
    for_any_backbone = True

    def attach(self, cfg, vit, tokens):
        self.norms = norm_parameters(vit)

    def trains(self, name, param):
        return name in self.norms


class PartTuning(Method):
    """What the methods that train chosen blocks share; ``parts`` has the modules of a block that each choice names."""

    paper = "Mai et al., 2025, arXiv:2409.16434"
    folds = True
    for_any_backbone = True
    adamw_lr = 1e-4  # as is usual for pre-trained weights themselves; not measured here

    parts: dict[str, tuple[str, ...]]
    node: str  # its keys are MODEL.<node>
    whole: str  # what PART "all" is, in a word

    @classmethod
    def defaults(cls) -> CfgNode:
        cfg = Section()
        # Blocks that train: indices from 0, negative ones from the last; the study trains [11], [10, 11] or [9, 10,
        # 11].
        cfg.BLOCKS = wholes([-1], filled=True, form="a list of block indices, such as [0, -1]")
        # Part of these blocks that trains; "all": all parts that the method can train.
        cfg.PART = one_of("all", cls.parts)
        return cfg

    @classmethod
    def words(cls, cfg):
        blocks = "the last block" if cfg.BLOCKS == [-1] else f"block{'s' * (len(cfg.BLOCKS) > 1)} {listed(cfg.BLOCKS)}"
        return super().words(cfg) | {"blocks": blocks, "part": cls.whole if cfg.PART == "all" else cfg.PART}

    def attach(self, cfg, vit, tokens):
        names = list(blocks(vit))
        depth = len(names)
        if outside := [i for i in cfg.BLOCKS if not -depth <= i < depth]:
            raise ValueError(f"MODEL.{self.node}.BLOCKS names {outside}, but the ViT has {depth} blocks")
        self.prefixes = ()
        for name in (names[i] for i in cfg.BLOCKS):
            for part in self.parts[cfg.PART]:
                if part and not (inside := family_of(vit).part(vit.get_submodule(name), part)):
                    raise DoesNotFit(f"MODEL.{self.node}.PART {cfg.PART!r} is {part}, and {name} has none")
                self.prefixes += tuple(f"{name}.{own}." for own in inside) if part else (f"{name}.",)

    def trains(self, name, param):
        return name.startswith(self.prefixes)


class AttentionTuning(PartTuning):
    """PART "qkv" (3 D^2 + 3 D parameters per block), "proj" (D^2 + D) or "all", both."""

    learns = "the {part} of {blocks} (`MODEL.ATTENTION_TUNING.BLOCKS`, `PART`)"

    node = "ATTENTION_TUNING"
    whole = "attention"
    parts = {"qkv": ("attn.qkv",), "proj": ("attn.proj",), "all": ("attn.qkv", "attn.proj")}  # noqa: RUF012


class MLPTuning(PartTuning):
    """PART "fc1" (4 D^2 + 4 D parameters per block), "fc2" (4 D^2 + D) or "all", both."""

    learns = "the {part} of {blocks} (`MODEL.MLP_TUNING.BLOCKS`, `PART`)"

    node = "MLP_TUNING"
    whole = "MLP"
    parts = {"fc1": ("mlp.fc1",), "fc2": ("mlp.fc2",), "all": ("mlp.fc1", "mlp.fc2")}  # noqa: RUF012


class BlockTuning(PartTuning):
    """PART "all": the whole block, with its norms and LayerScale (12 D^2 + 13 D parameters in an ordinary ViT)."""

    learns = "{blocks}, or others (`MODEL.BLOCK_TUNING.BLOCKS`)"

    node = "BLOCK_TUNING"
    whole = "block"
    parts = {"all": ("",)}  # noqa: RUF012
