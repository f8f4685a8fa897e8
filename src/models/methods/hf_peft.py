"""Every tuner of Hugging Face's peft that replaces linear maps, by its name (github.com/huggingface/peft, 0.21).

peft injects not into the ViT but into a *shell*: an empty tree with timm's names whose leaves share the ViT's
parameters and have none of its hooks. What it makes of a leaf then stands in the place of the ViT's own operation, so
that every other method composes with it. The shell may hold the thirds of a fused ``attn.qkv`` as linear maps of their
own, which is how FreqFiT uses BOFT, VeRA and FourierFT.

What the method learned, in memory and on disk, is what peft itself would save, under peft's names; a tensor that
several modules share (LILY's and RANDLORA's) is there once, under the first of its names. Tuners that draw something at
random and do not save it draw it again from a seed of their config.

FROD, SHiRA and WaveFT compute in ways that ``torch.compile`` cannot put into one graph; the others compile whole.

peft is imported inside functions: it brings transformers along, which takes seconds that no other method should cost.
"""

import logging
import re
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ...configs.keys import Section, arguments, location, number, one_of, text, whole
from ...utils.memory import AllocatingAtMost
from ..hf_peft.adapters import read_adapter, read_weights
from ..hf_peft.catalogue import argument_problems, find_tuner
from ..hf_peft.injected import PREFIX, Injected
from ..hf_peft.shell import one_of_every_shape, shape_of, target_leaves
from ..method import DoesNotFit
from ..sites import APART, LINEAR, require_linear, target_problems, targets

logger = logging.getLogger(__name__)

ROOM = 16  # times the backbone's and the adapter's bytes: what making an adapter's modules may allocate
LEAST_ROOM = 2**26
MOST_TENSORS = 2**17
HEADS = ("head.", "classifier.", "fc.")  # timm's and transformers' names of what a pre-trained backbone ends with here


class Peft(Injected):
    """LoRA and all its relatives, as peft has them."""

    paper = "Mangrulkar et al., 2022, github.com/huggingface/peft"
    learns = "what a tuner of Hugging Face peft learns"
    other_parts = ", or name its convolutions or other modules in MODEL.PEFT.KWARGS.target_modules"

    @staticmethod
    def defaults() -> CfgNode:
        cfg = Section()
        # peft's name of the tuner, such as "LORA", "LOHA", "OFT" or "VBLORA"; "": what LOAD has, else LORA.
        cfg.TYPE = text("")
        # Modules of every block that it replaces, by the end of their names; attn.q, attn.k and attn.v are the thirds
        # of attn.qkv. An argument target_modules in KWARGS takes their place and sees the whole backbone.
        cfg.TARGETS = targets(LINEAR, ())
        # Arguments of the tuner's config: {r: 8, use_dora: true}; on the command line also one by one, as KWARGS.r 8.
        cfg.KWARGS = arguments()
        # Start from an adapter that peft saved: the folder with its adapter_config.json, which sets TYPE and KWARGS.
        cfg.LOAD = location("")
        return cfg

    @staticmethod
    def problems(cfg):
        found = target_problems(cfg.TARGETS)
        if cfg.LOAD and cfg.KWARGS:
            found.append("KWARGS and LOAD: the adapter's own config says its arguments; leave KWARGS empty")
        if cfg.LOAD and not cfg.TYPE:
            return found
        try:
            kind = find_tuner(cfg.TYPE or "LORA")
        except ValueError as error:
            return [*found, f"TYPE: {error}"]
        return found + [f"KWARGS: {problem}" for problem in argument_problems(kind, plain(cfg.KWARGS))]

    @classmethod
    def require_parts(cls, cfg, vit, tokens):
        """Checks no adapter's file, and the targets alone where arguments choose among them by name."""
        if cfg.LOAD or "target_modules" in cfg.KWARGS:
            return
        leaves, _ = target_leaves(vit, cfg.TARGETS)
        if not any(re.search("modules|pattern|layers", name) for name in cfg.KWARGS):
            one_of_every_shape(find_tuner(cfg.TYPE or "LORA"), plain(cfg.KWARGS), leaves)

    def request(self, cfg):
        kind, arguments = find_tuner(cfg.TYPE or "LORA"), plain(cfg.KWARGS)
        if cfg.LOAD:
            kind, arguments = read_adapter(Path(cfg.LOAD))
            if cfg.TYPE and find_tuner(cfg.TYPE) != kind:
                raise ValueError(f"MODEL.PEFT.TYPE is {cfg.TYPE!r}, but MODEL.PEFT.LOAD {cfg.LOAD} is {kind}")
        self.without_files = {"LOAD": "", "TYPE": kind, "KWARGS": arguments} if cfg.LOAD else {}
        return kind, arguments, cfg.TARGETS

    def attach(self, cfg, vit, tokens):
        if not cfg.LOAD:
            return super().attach(cfg, vit, tokens)
        folder = Path(cfg.LOAD)
        size = sum(file.stat().st_size for file in folder.glob("adapter_model.*"))
        size += sum(param.nbytes for param in vit.parameters())
        with AllocatingAtMost(ROOM * size + LEAST_ROOM, MOST_TENSORS):  # what a stranger's adapter_config.json asks for
            super().attach(cfg, vit, tokens)
        self._start_from(folder, vit)

    @torch.no_grad()
    def _start_from(self, folder: Path, vit: nn.Module) -> None:
        """Load what the adapter learned, biases of the ViT included; its head is left out.

        Raises:
            ValueError: weights are missing, too many or of other shapes.
        """
        given, own = read_weights(folder, self.replaced), self._learned()
        biases = {name: param for name, param in vit.named_parameters() if self.trains(name, param)}
        wanted = own | biases
        given = {name if name in own else name.replace(".base_layer.", "."): given[name] for name in given}
        extra = sorted(given.keys() - wanted.keys())
        heads = [name for name in extra if name.removeprefix(PREFIX).startswith(HEADS)]
        wrong = [f"{name} is missing" for name in sorted(own.keys() - given.keys())]
        wrong += [f"{name} is unexpected" for name in extra if name not in heads]
        wrong += [
            f"{name} is {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in sorted(wanted.keys() & given.keys())
            if given[name].shape != wanted[name].shape
        ]
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ValueError(f"{folder} does not fit this backbone: {'; '.join(wrong[:5])}{more}")
        if heads:
            logger.warning("note: %s: left out %s: the head is a new one", folder, ", ".join(heads))
        self._learn({name: given[name] for name in own})
        for name in biases.keys() & given.keys():
            biases[name].copy_(given[name])


def plain(node: Any) -> Any:
    """Config nodes as dicts."""
    return {key: plain(value) for key, value in node.items()} if isinstance(node, dict) else node


class OneTuner(Injected):
    """What BOFT, VeRA and FourierFT share: one tuner of peft, with FreqFiT's keys and defaults."""

    tuner: str  # peft's name
    only: str  # BIAS's value for the biases of the targets alone
    linear_only = True  # whether it adapts linear maps, and no convolutions

    @classmethod
    def arguments(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the tuner's config, but for its targets and biases."""
        raise NotImplementedError

    @classmethod
    def defaults(cls) -> CfgNode:
        cfg = Section()
        # Linear maps of every block: attn.q, attn.k, attn.v or attn.qkv as one; attn.proj, mlp.fc1, mlp.fc2.
        cfg.TARGETS = targets(APART)
        # Biases of the ViT that train too: "none", "<tuner>_only" (of the targets; the default) or "all".
        cfg.BIAS = one_of(cls.only, ["none", cls.only, "all"])
        return cfg

    @staticmethod
    def problems(cfg):
        return target_problems(cfg.TARGETS)

    @classmethod
    def require_parts(cls, cfg, vit, tokens):
        one_of_every_shape(cls.tuner, cls.arguments(cfg), cls.leaves(cfg, vit))

    @classmethod
    def leaves(cls, cfg: CfgNode, vit: nn.Module) -> dict[str, nn.Module]:
        """The targets, by name; raises DoesNotFit where there are none, or their sizes do not fit the keys."""
        leaves, _ = target_leaves(vit, cfg.TARGETS)
        for name, leaf in leaves.items() if cls.linear_only else ():
            require_linear(leaf, name)
        if wrong := next(filter(None, (cls.misfit(cfg, name, leaf) for name, leaf in leaves.items())), ""):
            raise DoesNotFit(wrong)
        return leaves

    @classmethod
    def misfit(cls, cfg: CfgNode, name: str, op: nn.Module) -> str:
        """Why a module's sizes do not fit the keys, where peft would say it without their names; "" if they do."""
        return ""

    @classmethod
    def count(cls, cfg, vit, tokens):
        """One module of every shape is made, and counted as often as there are such: for all peft takes seconds."""
        leaves = cls.leaves(cfg, vit)
        own = {
            shape: sum(param.numel() for param in made.parameters() if param.requires_grad)
            for shape, made in one_of_every_shape(cls.tuner, cls.arguments(cfg), leaves).items()
        }
        sites = {getattr(leaf, "site", name) for name, leaf in leaves.items()}
        biases = {name: param.numel() for name, param in vit.named_parameters() if name.endswith("bias")}
        if cfg.BIAS != "all":
            biases = {name: n for name, n in biases.items() if cfg.BIAS != "none" and name[: -len(".bias")] in sites}
        return sum(own[shape_of(leaf)] for leaf in leaves.values()) + sum(biases.values())

    def attach(self, cfg, vit, tokens):
        self.leaves(cfg, vit)
        super().attach(cfg, vit, tokens)

    def request(self, cfg):
        return self.tuner, self.arguments(cfg) | {"bias": cfg.BIAS}, cfg.TARGETS


class BOFT(OneTuner):
    """W -> s W R: a rotation R of blocks of BLOCK_SIZE channels, and a scale s of the outputs.

    peft keeps a D x D permutation for every linear map of D inputs: 0.6 GB at ViT-B/16 with the default targets.
    """

    paper = "Liu et al., 2023, arXiv:2311.06243"
    learns = "a rotation of the inputs of linear maps"
    tuner = "BOFT"
    only = "boft_only"
    linear_only = False

    @classmethod
    def defaults(cls) -> CfgNode:
        cfg = super().defaults()
        # Channels of a block of the rotation.
        cfg.BLOCK_SIZE = whole(4, low=1, unit="channels")
        # Factors of the rotation. peft computes one without its CUDA extension, and so does this method, always.
        cfg.N_FACTOR = whole(2, low=1)
        # Share of the rotation's blocks that are left out, in training only.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        return cfg

    @classmethod
    def misfit(cls, cfg, name, op):
        inputs = getattr(op, "in_features", cfg.BLOCK_SIZE)
        if inputs % cfg.BLOCK_SIZE:
            return f"MODEL.BOFT.BLOCK_SIZE is {cfg.BLOCK_SIZE}, of which the {inputs} inputs of {name} are no multiple"
        return ""

    @classmethod
    def arguments(cls, cfg):
        return {
            "boft_block_size": cfg.BLOCK_SIZE,
            "boft_n_butterfly_factor": cfg.N_FACTOR,
            "boft_dropout": cfg.DROPOUT,
        }


class VeRA(OneTuner):
    """b * up(d * down(x)): up and down are random, frozen and common to all sites; b and d are learned."""

    paper = "Kopiczko et al., 2023, arXiv:2310.11454"
    learns = "the scales of a random low-rank update"
    tuner = "VERA"
    only = "vera_only"

    @classmethod
    def defaults(cls) -> CfgNode:
        cfg = super().defaults()
        # Rank of the update.
        cfg.R = whole(256, low=1)
        # Dropout on what the update reads, in training only.
        cfg.DROPOUT = number(0.1, low=0, below=1)
        return cfg

    @classmethod
    def arguments(cls, cfg):
        return {"r": cfg.R, "vera_dropout": cfg.DROPOUT}


class FourierFT(OneTuner):
    """W + SCALE times the real part of an inverse 2-D Fourier transform of FREQ learned entries at random places.

    The entries start at random, as in the paper, so that training does not start at the pre-trained model.
    """

    paper = "Gao et al., 2024, arXiv:2405.03003"
    learns = "a sparse spectrum of the update of linear maps"
    starts_pretrained = False
    tuner = "FOURIERFT"
    only = "fourier_only"

    @classmethod
    def defaults(cls) -> CfgNode:
        cfg = super().defaults()
        # Learned entries of each spectrum; no more than the matrix has.
        cfg.FREQ = whole(3000, low=1)
        # Factor on the update; the update starts as large as SCALE * sqrt(FREQ) / (inputs * outputs).
        cfg.SCALE = number(300.0)
        return cfg

    @classmethod
    def misfit(cls, cfg, name, op):
        most = op.weight.numel()
        return f"MODEL.FFT.FREQ is {cfg.FREQ}, more than the {most:,} entries of {name}" * (most < cfg.FREQ)

    @classmethod
    def arguments(cls, cfg):
        return {"n_frequency": cfg.FREQ, "scaling": cfg.SCALE}
