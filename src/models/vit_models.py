"""The tuned model: one frozen timm ViT, the methods attached to it, and a new head."""

from collections.abc import Callable, Iterable

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..configs.facts import image_size, is_native
from ..configs.methods import config_name as config_name
from ..configs.methods import method_keys, parse
from ..utils.text import a_kind
from .drop_path import places, set_drop_path
from .families import UNKNOWN, family_of, tokens_of
from .families.stages import Tokens
from .fitting import fitting
from .head import build_head
from .method import Method, connect
from .methods.adapter import Adapter
from .methods.adaptformer import AdaptFormer
from .methods.block import BlockExpansion
from .methods.convpass import Convpass
from .methods.difffit import DiffFit
from .methods.fact import FacTTK, FacTTT
from .methods.freqfit import FreqFit, FreqFitReal
from .methods.hf_peft import BOFT, FourierFT, Peft, VeRA
from .methods.houlsby import Houlsby
from .methods.lora import LoRA
from .methods.prompt import Prompt
from .methods.repadapter import RepAdapter
from .methods.rlrr import RLRR
from .methods.scale_shift import BlockScaleShift
from .methods.selective import AttentionTuning, Bias, BlockTuning, ClassToken, End2End, MLPTuning, NormTuning, Partial
from .methods.side import Side
from .methods.spt import SPTAdapter, SPTLoRA
from .methods.ssf import SSF
from .methods.vqt import VQT
from .pooling import set_pool
from .sites import unknown_network
from .vit_backbones.build import architecture, build_backbone
from .vit_backbones.fit import misfits
from .vit_backbones.zoo import norm_of_all

# To add a method: write src/models/methods/<name>.py and add its line here. Nothing else changes.
# Order is nesting, from the outside in: a method's taps go around those of the methods below it.
METHODS: dict[str, type[Method]] = {
    "side": Side,
    "vqt": VQT,
    "prompt": Prompt,
    "freqfit": FreqFit,
    "freqfit_real": FreqFitReal,
    "scale_shift": BlockScaleShift,
    "adapter": Adapter,
    "houlsby": Houlsby,
    "adaptformer": AdaptFormer,
    "convpass": Convpass,
    "repadapter": RepAdapter,
    "difffit": DiffFit,
    "lora": LoRA,
    "spt_lora": SPTLoRA,
    "spt_adapter": SPTAdapter,
    "peft": Peft,
    "boft": BOFT,
    "vera": VeRA,
    "fft": FourierFT,
    "fact_tt": FacTTT,
    "fact_tk": FacTTK,
    "rlrr": RLRR,
    "ssf": SSF,
    "block": BlockExpansion,
    "tinytl-bias": Bias,
    "layernorm": NormTuning,
    "partial": Partial,
    "attention_tuning": AttentionTuning,
    "mlp_tuning": MLPTuning,
    "block_tuning": BlockTuning,
    "cls": ClassToken,
    "end2end": End2End,
}

# What FREQFIT may say, and the method that does it. "ssf" is FreqFiT's name for the scale and shift between blocks.
FREQFIT_METHODS = {"freqfit": "freqfit", "freqfit_real": "freqfit_real", "ssf": "scale_shift"}

# Other names for a method with some of its keys set; "linear" is the head alone.
SHORTHANDS: dict[str, tuple[str, dict]] = {
    "bias": ("tinytl-bias", {}),
    "bitfit": ("tinytl-bias", {}),
    "full": ("end2end", {}),
    "pfeiffer": ("adapter", {}),
    "cls-reinit": ("cls", {"REINIT": True}),
    "prompt-noupdate": ("prompt", {"FROZEN": True}),
}

# What does not go together, and why.
REFUSED = {
    ("vqt", "convpass"): "vqt's queries pass the MLP without the patches, and convpass needs the patches' grid there",
    ("spt_lora", "spt_adapter"): "both spend a budget on the same weights, each by an allocation of its own",
}


class TunedViT(nn.Module):
    """images (B, 3, H, W) -> logits (B, num_classes).

    NaFlex networks also take images of any aspect ratio: patches (B, N, W + 3), see patches.py, or the dictionaries of
    timm's NaFlex loader.

    State-dict keys: ``vit.*`` are timm's, ``methods.<name>.*`` what each method learned, ``head.*`` the classifier.

    Args:
        vit: a timm VisionTransformer with its pre-trained weights; it becomes part of this model.
        methods: as ``parse`` returns them.
        cfg: the node ``MODEL``, with each method's keys.
        num_classes: 0 for no head: the features come out.
        head: what a zero-shot head starts from, see zero_shot.py.
        drop_path: of the ViT's blocks, frozen or not; 0: what a method wants, or the ViT has.

    Raises:
        ValueError: a method, ``head``, MODEL.POOL or drop-path does not fit this ViT.
    """

    def __init__(
        self,
        vit: nn.Module,
        methods: dict[str, dict],
        cfg: CfgNode,
        num_classes: int,
        head: dict[str, Tensor] | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        vit.reset_classifier(0)
        self.family = family_of(vit)
        vit.eval()  # before methods look what it computes: batch norms of one image have nothing to normalise
        self.family.prepare(vit)
        set_pool(vit, cfg.POOL)
        tokens = tokens_of(vit, cfg.POOL)
        _require_tokens(methods, vit, tokens)
        self.vit = vit
        self.methods = nn.ModuleDict()
        for name, implied in methods.items():
            keys = method_keys(cfg, name, implied)
            with fitting(name, METHODS[name], keys, vit, tokens):
                self.methods[name] = METHODS[name](keys, vit, tokens)
                if wanted := METHODS[name].drop_path(keys):
                    places(vit)
            drop_path = drop_path or wanted
        self.drop_paths = set_drop_path(vit, drop_path) if drop_path else []
        self.sites = connect(vit, self.methods)
        for name, param in vit.named_parameters():
            param.requires_grad = any(m.trains(name, param) for m in self.methods.values())
        dim = vit.head_hidden_size  # of what the head sees: after a ConvNeXt's hidden layer, where it has one
        for method in self.methods.values():
            dim = method.num_features(dim)
        self.num_classes = num_classes
        self.cfg: CfgNode | None = None  # the whole config, where code builds a model in memory to save it later
        self.head = build_head(dim, num_classes, cfg, head)
        self.vit.eval()  # all of it, what methods put into it too
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the head sees: images (B, 3, H, W) -> (B, D)."""
        return self.joined(self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:
        """The ViT's own features, after its final norm: (B, 3, H, W) -> (B, dim)."""
        if isinstance(images, dict) or images.ndim != 4:
            require_native(self)
        return self.family.pooled(self.vit, images)

    def joined(self, pooled: Tensor) -> Tensor:
        """The ViT's pooled features (B, dim) with what methods make of them, and add: (B, D)."""
        for method in self.methods.values():
            pooled = method.features(pooled)
        return pooled

    def train(self, mode: bool = True) -> "TunedViT":
        """As always, but a frozen ViT stays in eval mode: its dropout and drop-path act only where a method, or
        SOLVER.DROP_PATH, wants them."""
        self.training = mode
        self.methods.train(mode)
        self.head.train(mode)
        vit_mode = mode and any(method.vit_in_train_mode for method in self.methods.values())
        if self.vit.training != vit_mode:  # hundreds of modules, twice in every epoch
            self.vit.train(vit_mode)
        for module in self.drop_paths:
            module.training = mode
        return self

    def tuned_state_dict(self) -> dict[str, Tensor]:
        """All that differs from the pre-trained ViT: methods and head whole, and the ViT's trained parameters.

        Also the statistics of its batch norms, where it is in training mode during training.
        """
        trained = {f"vit.{name}" for name, param in self.vit.named_parameters() if param.requires_grad}
        if any(method.vit_in_train_mode for method in self.methods.values()):
            trained |= {f"vit.{name}" for name in batch_statistics(self.vit)}
        return {k: v for k, v in self.state_dict().items() if k in trained or not k.startswith("vit.")}

    def load_tuned_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what ``tuned_state_dict`` returned.

        Raises:
            ValueError: keys, shapes or kinds of numbers that do not fit this model.
        """
        own = self.tuned_state_dict()
        if wrong := misfits(own, state, values=False):
            raise ValueError(f"the saved values do not fit this model: {wrong}")
        self.load_state_dict(state, strict=False)

    def decays(self, name: str, param: nn.Parameter) -> bool | None:
        """Whether the methods that train the parameter ``name`` want it to decay; None: they leave it to the config."""
        part, _, rest = name.partition(".")
        if part == "methods":
            method, _, own = rest.partition(".")
            return self.methods[method].decays(own, param)
        if part != "vit":
            return None
        wishes = [method.decays(rest, param) for method in self.methods.values() if method.trains(rest, param)]
        return next((wish for wish in wishes if wish is not None), None)

    def num_trained(self) -> dict[str, int]:
        """Trained parameters by part: one entry per method, ``vit`` (its own weights) and ``head``."""
        parts = {**self.methods, "vit": self.vit, "head": self.head}
        return {name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()}


def batch_statistics(vit: nn.Module) -> set[str]:
    """Names of the running statistics of a network's batch norms, which change in training mode."""
    norms = {name: module for name, module in vit.named_modules() if isinstance(module, _BatchNorm)}
    return {f"{name}.{own}" for name, norm in norms.items() for own, _ in norm.named_buffers(recurse=False)}


def require_methods_fit(cfg: CfgNode) -> None:
    """Find out before weights or data are read whether the methods fit the backbone, in a fraction of a second.

    Raises:
        ValueError: one does not.
    """
    with torch.device("meta"):
        vit = architecture(cfg.DATA.FEATURE, image_size(cfg)).eval()
        family_of(vit).prepare(vit)
        set_pool(vit, cfg.MODEL.POOL, norm_of_all(cfg.DATA.FEATURE))
        if cfg.MODEL.RECOMPUTE != "off" and family_of(vit) is UNKNOWN:
            raise ValueError(f"MODEL.RECOMPUTE {cfg.MODEL.RECOMPUTE} needs blocks: {unknown_network(vit)}")
        tokens = tokens_of(vit, cfg.MODEL.POOL)
        methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
        _require_tokens(methods, vit, tokens)
        for name, implied in methods.items():
            keys = method_keys(cfg.MODEL, name, implied)
            with fitting(name, METHODS[name], keys, vit, tokens):
                METHODS[name].require_parts(keys, vit, tokens)
                if METHODS[name].drop_path(keys):
                    places(vit)
        whole = {name: keys for name, keys in methods.items() if METHODS[name].attaches_without_files}
        plain = cfg.MODEL.clone()
        plain.defrost()
        plain.HEAD_INIT = "auto"  # a zero-shot head starts from texts, which are not read here
        model = TunedViT(vit, whole, plain, 2, drop_path=cfg.SOLVER.DROP_PATH)
        if is_native(cfg):
            for name in methods:
                require_any_grid(name, METHODS[name].one_grid)
            require_native(model)
        _require_steps(model, image_size(cfg))


def require_native(model: TunedViT) -> None:
    """Raises ValueError unless all of it takes images that keep their aspect ratio."""
    model.family.native_patch(model.vit)
    for name, method in model.methods.items():
        require_any_grid(name, method.one_grid)


def require_any_grid(name: str, why_not: str) -> None:
    """Raises ValueError where a method says why it does not take images of any grid, see ``Method.one_grid``."""
    if why_not:
        raise ValueError(
            f"method {name!r} needs images of one shape, not in their own aspect ratios (DATA.RESIZE native): "
            f"{why_not}. Choose crop or squash, or another method"
        )


def _require_steps(model: TunedViT, size: tuple[int, int]) -> None:
    """Take a step without numbers: what methods put into the network must fit its shapes, and all of it must train.

    Raises:
        ValueError: it does not.
    """
    network, names = type(model.vit).__name__, ", ".join(model.methods) or "a linear head"
    try:
        model(torch.empty(2, 3, *size)).sum().backward()
    except RuntimeError as error:
        raise ValueError(f"{names} cannot run in this {network} on images of {size[0]}x{size[1]}: {error}") from error
    lost = [name for name, param in model.methods.named_parameters() if param.requires_grad and param.grad is None]
    if lost:
        raise ValueError(
            f"{names} would not train on this {network}: nothing that {lost[0]} makes reaches the features "
            f"({len(lost)} tensors). Choose another method or backbone"
        )


def _require_tokens(methods: Iterable[str], vit: nn.Module, tokens: Tokens | None) -> None:
    if tokens is None and (unfit := [name for name in methods if not METHODS[name].for_any_backbone]):
        raise ValueError(
            f"{', '.join(unfit)} needs the tokens of a ViT, which {a_kind(vit)} does not have; vitune list "
            "methods DATA.FEATURE <backbone> shows what works"
        )


def backbone_arguments(cfg: CfgNode) -> tuple:
    """The arguments of ``build_backbone`` in a config."""
    return cfg.DATA.FEATURE, cfg.MODEL.MODEL_ROOT, image_size(cfg), cfg.MODEL.WEIGHT_PATH, cfg.MODEL.POS_EMBED_RESIZE


def build_model(
    cfg: CfgNode,
    num_classes: int,
    backbone: Callable[..., nn.Module] = build_backbone,
    head: dict[str, Tensor] | None = None,
) -> TunedViT:
    """The whole model that a config describes: backbone with its weights, methods and head as SEED starts them.

    Args:
        backbone: makes a backbone that is this model's own.
        head: what a zero-shot head starts from: as ``zero_shot_head`` returns it.

    Raises:
        FileNotFoundError: the backbone's weights are missing; the message says where to get them.
        ValueError: weights or methods that do not fit.
    """
    methods = parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT)
    model = cfg.MODEL
    vit = backbone(*backbone_arguments(cfg))
    torch.manual_seed(cfg.SEED)  # here: how much the ViT draws before its weights are loaded depends on timm's version
    set_pool(vit, model.POOL, norm_of_all(cfg.DATA.FEATURE))
    return TunedViT(vit, methods, model, num_classes, head, cfg.SOLVER.DROP_PATH)
