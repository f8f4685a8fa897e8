"""Numbers from the original research code: every case in the folder PARITY_DIR (default: the copy beside this file).

Each case was computed with the original repository's code on a tiny ViT. Cases of the same schema with other sizes,
seeds and options can be put into a folder and run with ``PARITY_DIR=<folder> pytest tests/test_parity.py``. With
``TEST_DEVICE=cuda`` models compute on a GPU, in float32 with all its bits.
"""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import DEVICE, scratch_file
from paths import PARITY
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from src.configs.config import get_cfg
from src.engine.knn import knn_accuracy, knn_votes
from src.engine.sensitivity import squared_gradients
from src.models.allocation import Allocation, Rules, allocate, pieces
from src.models.merge import merged_state_dict
from src.models.method import wires
from src.models.methods.convpass import ConvBypass
from src.models.methods.sparse import SparseUpdate
from src.models.sites import APART
from src.models.vit_backbones import build, convert
from src.models.vit_models import TunedViT, parse
from src.models.wise import between
from src.solver.losses import SoftmaxLoss
from src.solver.lr_scheduler import learning_rate
from src.solver.optimizer import build_optimizer, set_learning_rate

ATOL = 1e-5


def cases(group: str, pattern: str = "*.json") -> list:
    return [pytest.param(path, id=f"{group}/{path.stem}") for path in sorted((PARITY / group).glob(pattern))]


def build_vit(arch: dict) -> VisionTransformer:
    """A ViT from a case's ``arch``; every entry of it is used."""
    acts = {"gelu": nn.GELU, "quick_gelu": timm.layers.QuickGELU}
    names = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "class_token")
    vit = VisionTransformer(
        **{name: arch[name] for name in names},
        num_classes=0,
        global_pool=arch["global_pool"],
        pre_norm=arch["pre_norm"],
        act_layer=acts[arch["act"]],
        norm_layer=partial(nn.LayerNorm, eps=arch["norm_eps"]),
        init_values=arch["init_values"],
    )
    assert (vit.patch_embed.proj.bias is not None) == arch["patch_embed_bias"]
    return vit


class Case:
    """One case's numbers, and a model built from its description."""

    def __init__(self, path: Path):
        self.json = json.loads(path.read_text())
        self.npz = {k: torch.from_numpy(v) for k, v in np.load(path.with_suffix(".npz")).items()}
        vit = build_vit(self.json["arch"])
        vit.load_state_dict(self.part("backbone/"))
        cfg = get_cfg()
        methods = DESCRIBE[path.parent.name](self.json["method"], cfg)
        for method in {"spt_lora", "spt_adapter"} & methods.keys():
            cfg.MODEL[method.upper()].ALLOCATION = self.allocation(vit)
        self.model = TunedViT(vit, methods, cfg.MODEL, self.npz["logits"].shape[-1]).eval()
        self.params = named_as_in_case(self.model, path.parent.name)
        for name, value in self.part("tuned/").items() | self.part("head/", "head.").items():
            assign(self.params[name], value)
        self.model.to(DEVICE)

    def allocation(self, vit: VisionTransformer) -> str:
        """The file that says where SPT's modules, whole vectors and single entries are in this case."""
        method, known = self.json["method"], pieces(vit)
        names, masked = list(known), []
        chosen = set(method["tuned_vectors"])
        for i, row in enumerate(method["tuned_matrices"]):
            chosen |= {f"blocks.{i}.{op}.weight" for op, on in zip(APART, row, strict=True) if on}
        for name, index in self.part("index/").items():
            piece = known[name.replace("sparse_", "")]
            flat = index[0] * piece.shape[1] + index[1] if len(index) == 2 else index[0]
            assert torch.equal(flat, flat.sort().values)
            masked.append(
                flat
                + sum(p.numel for n, p in known.items() if names.index(n) < names.index(name.replace("sparse_", "")))
            )
        made = Allocation(
            torch.tensor(sorted(names.index(name) for name in chosen), dtype=torch.int64),
            torch.cat(masked or [torch.empty(0, dtype=torch.int64)]).sort().values,
            torch.tensor([len(known), sum(piece.numel for piece in known.values())]),
        )
        path = scratch_file("allocation.safetensors")
        made.save(path)
        return str(path)

    def part(self, prefix: str, new: str = "") -> dict[str, torch.Tensor]:
        return {new + k.removeprefix(prefix): v for k, v in self.npz.items() if k.startswith(prefix)}


def describe_freqfit(method: dict, cfg) -> dict[str, dict]:
    """Set the keys that a case's ``method`` describes; what ``parse`` makes of it. Unknown entries are an error."""
    left = dict(method)
    transfer, freqfit = left.pop("transfer_type"), left.pop("freqfit")
    pools_class_token = left.pop("pool_detail").startswith("CLS")
    dimensions = left.pop("freqfit_dim")
    if dimensions:
        cfg.MODEL.FREQFIT.TRANSFORM = cfg.MODEL.FREQFIT_REAL.TRANSFORM = dimensions
    if lora := left.pop("lora", None):
        assert (lora["bias"], lora["dropout"]) == (False, 0.0)
        # Their integer division is part of the case's numbers: give the scale it came to.
        cfg.MODEL.LORA.update(RANK=lora["rank"], ALPHA=float(lora["effective_scale"] * lora["rank"]))
        cfg.MODEL.LORA.TARGETS = lora["targets"]
    if adapter := left.pop("adapter", None):
        assert adapter["act"] == "gelu"
        cfg.MODEL.ADAPTER.update(REDUCTION_FACTOR=adapter["reduction"], STYLE=adapter["style"])
    if prompt := left.pop("prompt", None):
        assert (prompt["location"], prompt["dropout"]) == ("prepend", 0.0)
        cfg.MODEL.PROMPT.update(NUM_TOKENS=prompt["num_tokens"], DEEP=prompt["deep"], PROJECT=prompt["project"])
        # VPT's MoCo v3 models pool the class token whatever the key says.
        cfg.MODEL.PROMPT.VIT_POOL_TYPE = "original" if pools_class_token else prompt["vit_pool_type"]
    assert not left, f"the case's method has entries this test does not know: {left}"
    return parse(transfer, "" if freqfit == "none" else freqfit)


def describe_study(method: dict, cfg) -> dict[str, dict]:
    """As ``describe_freqfit``, for cases of the unifying study."""
    left, model = dict(method), cfg.MODEL
    assert left.pop("merge_factor") == 1, "what was learned is scaled afterwards"
    left.pop("name")
    activation = left.pop("activation", None)
    switches = {"full": "end2end", "bitfit": "tinytl-bias", "ln": "layernorm", "difffit": "difffit", "ssf": "ssf"}
    wanted = [name for switch, name in switches.items() if left.pop(switch, False)]
    model.SSF.POOLED_NORM = "norm"
    for part, node in (("attention", model.ATTENTION_TUNING), ("mlp", model.MLP_TUNING), ("block", model.BLOCK_TUNING)):
        if (blocks := left.pop(f"{part}_index", None)) is not None:
            node.update(BLOCKS=blocks)
            wanted.append(f"{part}_tuning")
        if (which := left.pop(f"{part}_type", None)) is not None:
            node.PART = {"full": "all"}.get(which, which)
    if rank := left.pop("lora_bottleneck", 0):
        model.LORA.update(RANK=rank, ALPHA=0.0, TARGETS=["attn.qkv"])
        wanted.append("lora")
    if kind := left.pop("fact_type", None):
        keys = {"RANK": left.pop("fact_dim"), "SCALE": float(left.pop("fact_scaler"))}
        model[f"FACT_{kind.upper()}"].update(keys)
        wanted.append(f"fact_{kind}")
    if mode := left.pop("vpt_mode", None):
        last = left.pop("vpt_layer", None) or 0
        model.PROMPT.update(NUM_TOKENS=left.pop("vpt_num"), DEEP=mode == "deep")
        model.PROMPT.update(NUM_DEEP_LAYERS=last, REVERSE_DEEP=bool(last))
        model.PROMPT.FORWARD_DEEP_NOEXPAND = mode == "shallow"  # theirs takes the prompts out behind the first block
        assert mode in ("deep", "shallow")
        assert mode == "deep" or not last
        wanted.append("prompt")
    wanted += describe_modules(left, model, activation)
    assert not left, f"the case's method has entries this test does not know: {left}"
    return parse("+".join(wanted) or "linear")


# The study's adapters (mode, before or after the norm) -> which of our methods stands for it, its MODE and INPUT. All
# three have the same keys; three, so that a case may mix placements.
ADAPTERS = {
    ("parallel", "after"): ("adapter", "parallel", "norm"),
    ("parallel", "before"): ("adaptformer", "parallel", "residual"),
    ("sequential_after", ""): ("houlsby", "sequential", "norm"),
}


def describe_modules(left: dict, model, activation: str | None) -> list[str]:
    """What the study adds to branches: sets our methods' keys, takes its entries out of ``left``, names the methods."""
    assert activation in (None, "relu", "quick_gelu (twice)")  # an adapter's and Convpass's only one
    found, reads = {}, []  # what Convpass reads, branch by branch
    for part in ("attn", "mlp"):
        kind = left.pop(f"ft_{part}_module", None)
        mode, norm = left.pop(f"ft_{part}_mode", None), left.pop(f"ft_{part}_ln", None)
        if kind == "adapter":
            name, ours, reading = ADAPTERS[mode, norm if mode == "parallel" else ""]
            model[name.upper()].update(MODE=ours, INPUT=reading)
            found.setdefault(name, []).append(part)
        elif kind is not None:
            assert mode == {"convpass": "parallel", "repadapter": "sequential_before"}[kind]
            found.setdefault(kind, []).append(part)
            if kind == "convpass":
                reads.append({"after": "norm", "before": "residual"}[norm])
    known = set()
    for name, parts in found.items():
        node, theirs = model[name.upper()], name if name in ("convpass", "repadapter") else "adapter"
        scale = left[f"{theirs}_scaler"]
        node.update(SITES=parts, WIDTH=left[f"{theirs}_bottleneck"])
        node.SCALE = 1.0 if scale == "learnable_scalar" else float(scale)
        if theirs == "adapter":
            node.update(ACTIVATION="relu", INIT=left["adapter_init"], LEARN_SCALE=scale == "learnable_scalar")
        elif theirs == "repadapter":
            node.GROUPS = left["repadapter_group"]
        else:
            node.CONV_INIT = "xavier" if left["convpass_xavier_init"] else "identity"
            node.INPUT = ",".join(reads)
        known |= {f"{theirs}_{key}" for key in ("bottleneck", "scaler", "init", "group", "xavier_init")}
    for key in known & left.keys():
        del left[key]
    return list(found)


def describe_spt(method: dict, cfg) -> dict[str, dict]:
    """As ``describe_freqfit``, for the cases of RLRR and of Block Expansion's comparison: one method each."""
    left = dict(method)
    wanted = DESCRIBE_SPT[left.pop("name")](left, cfg.MODEL)
    assert not left, f"the case's method has entries this test does not know: {left}"
    return parse(wanted)


def describe_rlrr(left: dict, model) -> str:
    qkv = left.pop("qkv")
    first = {"separate": ["attn.q", "attn.k", "attn.v"], "fused": ["attn.qkv"]}[qkv]
    assert left.pop("targets") == [*first, "attn.proj", "mlp.fc1", "mlp.fc2"]
    assert left.pop("residual") is True
    model.RLRR.update(QKV=qkv, SCALE_SHIFT=left.pop("ssf_on"))
    return "rlrr"


def describe_block_expansion(left: dict, model) -> str:
    model.BLOCK.SPLIT = split = left.pop("split")
    assert left.pop("expanded_indices") == [split + i * (split + 1) for i in range(left.pop("p"))]
    copied = [int(text.split()[-1]) for text in left.pop("final_order") if text.startswith("expanded")]
    assert copied == [split - 1 + i * split for i in range(len(copied))]
    assert left.pop("zeroed_at_init") == [
        f"{op}.{name}" for op in ("attn.proj", "mlp.fc2") for name in ("bias", "weight")
    ]
    assert left.pop("trainable") == "all tensors of expanded blocks + fresh classifier"
    return "block"


def describe_top_k(left: dict, model) -> str:
    model.PARTIAL.update(NUM_BLOCKS=left.pop("k"), NORM=left.pop("final_norm_trained"))
    blocks = left.pop("trainable_blocks")
    assert len(blocks) == model.PARTIAL.NUM_BLOCKS  # that they are the last ones, the trained names say
    return "partial" + "+cls" * left.pop("cls_token_trained")


def describe_lora(left: dict, model) -> str:
    model.LORA.update(RANK=left.pop("r"), ALPHA=float(left.pop("lora_alpha")), TARGETS=left.pop("targets"))
    assert left.pop("scaling") == model.LORA.ALPHA / model.LORA.RANK
    model.LORA.update(BIAS=left.pop("bias"), DROPOUT=left.pop("lora_dropout"))
    return "lora"


def describe_sensitivity_aware(left: dict, model) -> str:
    kind = left.pop("structured_type")
    bias = left.pop("structured_bias")
    name = "spt_adapter" if kind == "adapter" else "spt_lora"
    mode = {"BlockSPTSeq": "sequential", "BlockSPTParallel": "parallel"}[left.pop("block")]
    keys = model[name.upper()]
    keys.update(
        RANK=left.pop("low_rank_dim"), MODE=mode, BIAS={"lora": False, "lora_bias": True, "adapter": bias}[kind]
    )
    keys.update(DROPOUT=left.pop("structured_dropout"), DROP_PATH=left.pop("structured_drop_path"))
    assert (left.pop("scaling"), left.pop("cls_token_trained")) == (1.0, True)
    assert left.pop("tuned_matrices_columns") == list(APART)
    for told in ("tuned_matrices", "tuned_vectors", "masks"):  # the allocation
        left.pop(told)
    return name


DESCRIBE_SPT = {
    "spt": describe_sensitivity_aware,
    "rlrr": describe_rlrr,
    "block_expansion": describe_block_expansion,
    "top_k_blocks": describe_top_k,
    "lora": describe_lora,
}

DESCRIBE = {"freqfit": describe_freqfit, "study": describe_study, "spt": describe_spt}


def named_as_in_study(model: TunedViT) -> dict[str, list[nn.Parameter]]:
    """The study's canonical names -> our parameters."""
    named = {}

    def add(prefix, module):
        named.update({f"{prefix}.{name}": [param] for name, param in module.named_parameters()})

    for method, site, _, tap in wires(model.methods):
        kind, place = type(tap).__name__, site.replace("patch_embed.proj", "patch_embed").replace("fc_norm", "norm")
        if kind == "Keep":
            continue
        if kind == "LowRank":
            block = site.removesuffix("attn.qkv")
            named |= {f"lora.{block}qkv.A": [tap.down.weight], f"lora.{block}qkv.B": [tap.up.weight]}
        elif kind in ("Bottleneck", "FromKept", "ConvBypass"):
            tap = tap.tap if kind == "FromKept" else tap
            add(f"{'convpass' if isinstance(tap, ConvBypass) else 'adapter'}.{site}", tap)
        elif kind == "GroupedBottleneck":
            rep = f"repadapter.{site.rsplit('.', 1)[0]}"
            add(f"{rep}.A", tap.down)
            named |= {f"{rep}.B.weight": [tap.weight], f"{rep}.B.bias": [tap.bias]}
        elif kind == "ScaleShift":
            add(f"ssf.{place.replace('attn.', '').replace('mlp.', '')}", tap)
        elif kind == "Gamma":
            gamma = "gamma1" if site.endswith("attn.proj") else "gamma2"
            named[f"difffit.{site.rsplit('.', 2)[0]}.{gamma}"] = [tap.gamma]
        elif kind == "TrainCore":
            add(f"fact.{site.rsplit('.', 2)[0]}", tap.cores)
        elif kind == "Insert":
            named.setdefault("vpt.prompts", []).append(tap.prompts)
        else:
            assert kind in ("TuckerCore", "Remove"), f"{method} has taps that this test does not know: {kind}"
    for method in ("fact_tt", "fact_tk"):
        if method in model.methods:
            named |= {f"fact.{n.upper()}": [p] for n, p in model.methods[method].factors.named_parameters()}
    return named


def named_as_in_case(model: TunedViT, group: str) -> dict[str, list[nn.Parameter]]:
    """The cases' canonical names -> our parameters: one, or several that are stacked or concatenated there."""
    names = {"freqfit": named_as_in_freqfit, "study": named_as_in_study, "spt": named_as_in_spt}
    named = {name: [param] for name, param in model.vit.named_parameters()} | names[group](model)
    head = model.head.last_layer
    named |= {f"head{sign}{name}": [param] for name, param in head.named_parameters() for sign in "./"}
    return named


def named_as_in_freqfit(model: TunedViT) -> dict[str, list[nn.Parameter]]:
    named = {}

    def add(name, *params):
        named.setdefault(name, []).extend(params)

    for method, site, _, tap in wires(model.methods):
        kind = type(tap).__name__
        if kind == "LowRank":
            add(f"{site}.lora_a.weight", tap.down.weight)
            add(f"{site}.lora_b.weight", tap.up.weight)
        elif kind == "LowRankParts":
            for third, low_rank in tap.thirds.items():
                add(f"{site.removesuffix('qkv')}{third}.lora_a.weight", low_rank.down.weight)
                add(f"{site.removesuffix('qkv')}{third}.lora_b.weight", low_rank.up.weight)
        elif kind == "Bottleneck":
            for name, param in tap.named_parameters():
                add(f"{site.removesuffix('mlp')}adapter.{name}", param)
        elif kind == "Insert":
            add("prompt.embeddings" if site == "blocks.0" else "prompt.deep_embeddings", tap.prompts)
        elif kind == "SpectralFilter":
            add("freqfit.filter_weight", tap.filter)
            add("freqfit.scale", tap.scale)
            add("freqfit.shift", tap.shift)
        elif kind == "ScaleShift" and method == "scale_shift":
            add("ssf.scale", tap.scale)
            add("ssf.shift", tap.shift)
    if "prompt" in model.methods:
        for name, param in model.methods["prompt"].projection.named_parameters():
            add(f"prompt.proj.{name}", param)
    return named


@dataclass(frozen=True)
class Part:
    """One of ``count`` equal parts of a parameter along its first axis, as far as ``assign`` and ``gather`` see it."""

    param: nn.Parameter
    number: int
    count: int

    @property
    def data(self) -> torch.Tensor:
        return self.param.data.chunk(self.count)[self.number]

    @property
    def grad(self) -> torch.Tensor | None:
        return None if self.param.grad is None else self.param.grad.chunk(self.count)[self.number]


@dataclass
class Entries:
    """Single entries of a sparse update, as far as ``assign`` and ``gather`` see them; ``base`` is added there."""

    param: nn.Parameter
    positions: torch.Tensor
    base: torch.Tensor | float = 0.0

    @property
    def grad(self) -> torch.Tensor | None:
        return None if self.param.grad is None else self.param.grad[self.positions]

    @property
    def data(self) -> torch.Tensor:
        return self.param.data[self.positions] + self.base

    def set(self, value: torch.Tensor) -> None:
        self.param.data[self.positions] = value - self.base


def entries_of(site: str, tap: SparseUpdate) -> dict[str, list[Entries]]:
    """A sparse update's names in group "spt"; a third of a bias that moves as a whole has its absolute values there."""
    (linear,) = tap.linear
    places = thirds_of(site) if site.endswith("attn.qkv") else [site]
    rows = linear.out_features // len(places)
    named = {}
    for kind, param, row in (
        ("weight", tap.weight, tap.index // linear.in_features),
        ("bias", tap.bias, tap.bias_index),
    ):
        for i, place in enumerate(places if param is not None else []):
            positions = (row // rows == i).nonzero().flatten()
            named[f"{place}.sparse_{kind}"] = [Entries(param, positions)]
            if kind == "bias" and len(positions) == rows:
                named[f"{place}.bias"] = [Entries(param, positions, linear.bias[i * rows : (i + 1) * rows])]
    return named


def thirds_of(site: str) -> list[str]:
    """ "blocks.0.attn.qkv" -> the names of q, k and v."""
    return [site.removesuffix("qkv") + third for third in "qkv"]


def named_as_in_spt(model: TunedViT) -> dict[str, list[nn.Parameter]]:
    """The names of group "spt" -> our parameters, or thirds of them: q, k and v have names of their own there.

    New blocks are numbered as all blocks run, while the backbone's own tensors keep their numbers.
    """
    named, new_blocks = {}, 0
    for name, param in model.vit.named_parameters():
        if ".attn.qkv." in name:
            site, kind = name.rsplit(".", 1)
            named |= {f"{place}.{kind}": [Part(param, i, 3)] for i, place in enumerate(thirds_of(site))}
    for method, site, verb, tap in wires(model.methods):
        kind = type(tap).__name__
        if kind == "Rescale":
            parts = len(tap.scale_in)
            for i, place in enumerate(thirds_of(site) if parts == 3 else [site]):
                named[f"{place}.rescale_in"] = [Part(tap.scale_in, i, parts)]
                named[f"{place}.rescale_out"] = [Part(tap.scale_out, i, parts)]
                named[f"{place}.shift"] = [Part(tap.bias, i, parts)]
        elif kind == "ScaleShift":
            place = site.replace("patch_embed.proj", "patch_embed").replace("fc_norm", "norm")
            named |= {f"{place}.ssf_scale": [tap.scale], f"{place}.ssf_shift": [tap.shift]}
        elif kind == "Block":
            new_blocks += 1
            number = int(site.split(".")[1]) + new_blocks
            named |= {f"blocks.{number}.{name}": [param] for name, param in tap.named_parameters()}
        elif kind == "LowRankParts":
            for third, low_rank in tap.thirds.items():
                place = site.removesuffix("qkv") + third
                named |= {f"{place}.lora_A": [low_rank.down.weight], f"{place}.lora_B": [low_rank.up.weight]}
        elif kind == "LowRank":
            named |= {f"{site}.lora_A": [tap.down.weight], f"{site}.lora_B": [tap.up.weight]}
        elif kind == "SparseUpdate":
            named |= entries_of(site, tap)
        elif kind in ("Delta", "PartsBeside", "PartsAfter"):
            parts = {site: tap} if kind == "Delta" else {site.removesuffix("qkv") + t: d for t, d in tap.parts.items()}
            for place, delta in parts.items():
                named |= {f"{place}.{n}": [param] for n, param in delta.named_parameters()}
        else:
            assert kind in ("Dropout", "DropPath"), (
                f"{method} has taps that this test does not know: {kind} {verb} {site}"
            )
    return named


def assign(params: list[nn.Parameter | Part], value: torch.Tensor) -> None:
    parts = [value] if len(params) == 1 and params[0].data.squeeze().shape == value.squeeze().shape else list(value)
    assert len(parts) == len(params)
    for param, part in zip(params, parts, strict=True):
        if isinstance(param, Entries):
            param.set(part)
            continue
        param.data.copy_(part.reshape(param.data.shape))


def gather(params: list[nn.Parameter | Part], like: torch.Tensor) -> torch.Tensor:
    grads = [(torch.zeros_like(p.data) if p.grad is None else p.grad).cpu() for p in params]
    return torch.stack([g.reshape(-1) for g in grads]).reshape(like.shape)


WISE = [case for case in cases("study") if case.values[0].name.startswith("wise_")]
STUDY = [case for case in cases("study") if not case.values[0].name.startswith(("wise_", "manifest"))]


def has_logits(path: Path) -> bool:
    with np.load(path.with_suffix(".npz")) as file:
        return "logits" in file.files


# Cases of a method on a whole ViT; sensitivities and nearest neighbours have a schema of their own.
SPT = [case for case in cases("spt") if has_logits(case.values[0])]


@pytest.mark.parametrize("path", cases("freqfit") + STUDY + SPT)
def test_case(path):
    case = Case(path)
    images, targets = case.npz["input"].to(DEVICE), case.npz["target"].to(DEVICE)
    features = case.model.features(images)
    logits = case.model.head(features)
    nn.functional.cross_entropy(logits, targets).backward()

    torch.testing.assert_close(features.cpu(), case.npz["features"], atol=ATOL, rtol=0)
    torch.testing.assert_close(logits.cpu(), case.npz["logits"], atol=ATOL, rtol=0)
    for name, grad in case.part("grad/").items():
        torch.testing.assert_close(
            gather(case.params[name], grad), grad, atol=ATOL, rtol=0, msg=lambda m, n=name: n + m
        )
    head = sum(p.numel() for p in case.model.head.parameters())
    trained = sum(p.numel() for p in case.model.parameters() if p.requires_grad)
    assert trained - head == case.json["trainable_params_without_head"]
    assert head == case.json.get("head_params", head)
    if "trained" in case.json:
        theirs = {id(p) for name in case.json["trained"] for p in case.params[name]}
        assert theirs == {id(p) for p in case.model.parameters() if p.requires_grad}
    assert case.model.vit.blocks[0].norm1.eps == case.json["arch"]["norm_eps"]
    if theirs := case.part("merged/"):
        merged = merged_state_dict(case.model)
        assert merged.keys() == theirs.keys()
        for name, weight in theirs.items():
            torch.testing.assert_close(merged[name].cpu(), weight, atol=ATOL, rtol=0, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("path", WISE)
def test_weight_space_ensembles(path):
    """Between the pre-trained and the tuned model, with the study's CLIP head, or an ordinary one, at both ends."""
    about, npz = (
        json.loads(path.read_text()),
        {k: torch.from_numpy(v) for k, v in np.load(path.with_suffix(".npz")).items()},
    )

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in npz.items() if k.startswith(prefix)}

    vit = build_vit(about["arch"])
    vit.load_state_dict(part("backbone/"))
    cfg = get_cfg()
    model = TunedViT(vit, describe_study(about["method"], cfg), cfg.MODEL, num_classes=0).eval()
    params = named_as_in_study(model) | {name: [param] for name, param in model.vit.named_parameters()}
    for name, value in part("tuned/").items():
        assign(params[name], value)
    start = {f"vit.{name}": value for name, value in part("backbone_zs/").items()}
    assert all(float(value.min()) == float(value.max()) == 1 for value in part("tuned_zs/").values())  # DiffFit's gates
    ends = part("head_zs/"), part("head/")
    assert about["wise"]["alphas"][-1] == 1.0

    def head(features, alpha):
        mixed = {name: ends[0][name].lerp(ends[1][name], alpha) for name in ends[1]}
        if "proj.weight" in mixed:
            features = nn.functional.normalize(features @ mixed["proj.weight"].T, dim=-1)
        prefix = "fc." if "fc.weight" in mixed else ""
        return features @ mixed[f"{prefix}weight"].T + mixed[f"{prefix}bias"]

    tuned = model.features(npz["input"])
    for alpha in about["wise"]["alphas"]:
        with between(model, start, alpha) as network:
            features = network.features(npz["input"])
        torch.testing.assert_close(features, npz[f"alpha/{alpha}/features"], atol=ATOL, rtol=0)
        torch.testing.assert_close(head(features, alpha), npz[f"alpha/{alpha}/logits"], atol=ATOL, rtol=0)
        if (only_head := npz.get(f"alpha_fc/{alpha}/logits")) is not None:
            torch.testing.assert_close(head(tuned, alpha), only_head, atol=ATOL, rtol=0)
    assert torch.equal(model.features(npz["input"]), tuned)


NEIGHBOURS = [case for case in cases("spt") if "knn" in case.values[0].name]


@pytest.mark.parametrize("path", NEIGHBOURS)
def test_nearest_neighbours(path):
    """Votes and accuracies; "correct" where the original code drops or miscounts images and classes."""
    case, npz = (
        json.loads(path.read_text()),
        {k: torch.from_numpy(v) for k, v in np.load(path.with_suffix(".npz")).items()},
    )
    about = case["method"]
    assert (about["weight"], about["features"]) == ("exp(cosine/T)", "L2-normalised rows")
    for k, expected in case["results"].items():
        bank = npz["train_features"], npz["train_labels"]
        votes = knn_votes(*bank, npz["test_features"], about["num_classes"], int(k), about["temperature"])
        if (theirs := npz.get(f"votes_k{k}")) is not None:
            torch.testing.assert_close(votes, theirs.float(), rtol=1e-4, atol=1e-2)  # sums of up to 1.6 million each
        found = knn_accuracy(votes, npz["test_labels"])
        assert 100 * found["top1"] == pytest.approx(expected["correct_top1"], abs=1e-4)
        assert 100 * found["top5"] == pytest.approx(expected["correct_top5_counting_only_classes_with_votes"], abs=1e-4)


SENSITIVITIES = [case for case in cases("spt") if json.loads(case.values[0].read_text()).get("combos")]


@pytest.mark.parametrize("path", SENSITIVITIES)
def test_sensitivities_and_what_is_spent_on_them(path):
    """The sums of squared gradients, and every budget of every set of rules, from the original's own sums."""
    case, npz = (
        json.loads(path.read_text()),
        {k: torch.from_numpy(v) for k, v in np.load(path.with_suffix(".npz")).items()},
    )
    vit = build_vit(case["arch"])
    vit.load_state_dict({k.removeprefix("backbone/"): v for k, v in npz.items() if k.startswith("backbone/")})
    model = TunedViT(vit, {}, get_cfg().MODEL, len(npz["head/weight"]))
    model.head.last_layer.weight.data.copy_(npz["head/weight"])
    model.head.last_layer.bias.data.copy_(npz["head/bias"])
    found = squared_gradients(model, zip(npz["input"], npz["target"], strict=True))
    assert list(found) == case["eligible_order"]
    theirs = {name: npz[f"sensitivity/{name}"] for name in found}
    for name in found:
        torch.testing.assert_close(found[name], theirs[name], rtol=1e-3, atol=1e-9, msg=lambda m, n=name: n + m)

    about, token = case["method"], vit.cls_token.numel()
    for combo, asked in case["combos"].items():
        options = asked["options"]
        rules = Rules(kind=options["structured_type"], rank=about["low_rank_dim"], always=token, **{
            key: options[key] for key in ("alpha", "beta", "structured_vector", "structured_only")
        })  # fmt: skip
        for budget in ("1.0", "0.8", "0.6", "0.4", "0.2", "0.1", "0.05"):
            where, expected = (combo, budget), asked["budgets"].get(budget)
            try:
                made = allocate(vit, theirs, rules, float(budget) * about["unit"], about["unit"])
            except ValueError:
                assert expected is None, where
                continue
            told = ("sweep_position", "tau", "unstructured", "structured", "total_count_peer_claim")
            ours = (made.about["step"] - 1, *(made.about[key] for key in ("tau", "masked", "structured", "total")))
            assert ours == tuple(expected[key] for key in told), where
            names, known = made.names(vit), pieces(vit)
            assert [name for name in names if len(known[name].shape) == 1] == expected["tuned_vectors"], where
            matrices = [[f"blocks.{i}.{op}.weight" in names for op in APART] for i in range(len(vit.blocks))]
            assert matrices == npz[f"alloc/{combo}/{budget}/tuned_matrices"].bool().tolist(), where
            masks, flat, start = made.masks(vit), [], 0
            for name, piece in known.items():  # theirs counts along what is not structured
                if name not in names:
                    flat += (masks.get(name, torch.empty(0, dtype=torch.int64)) + start).tolist()
                    start += piece.numel
            assert flat == npz[f"alloc/{combo}/{budget}/unstructured_indexes"].tolist(), where


def converter_of(golden: dict, path: Path):
    """The converter of a checkpoint: by what is in it, for its name may be anything."""
    if path.suffix == ".npz":
        return convert.google
    try:
        torch.jit.load(path)
        return convert.clip
    except RuntimeError:
        content = torch.load(path, map_location="cpu", weights_only=True)
    if any(name.startswith("visual.") for name in content):
        return convert.clip
    if "model" in content:
        return convert.mae_fresh_norm if "vpt" in golden["peer"] else convert.mae
    return convert.moco


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("path", cases("zoo", "*.golden.json"))
def test_checkpoint(path):
    golden, numbers = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    converter = converter_of(golden, path.parent / golden["checkpoint"])
    arch = {"mlp_ratio": golden["mlp_ratio"], "norm_eps": golden["norm_eps"], "global_pool": golden["pool"]}
    arch |= {name: golden[name] for name in ("img_size", "patch_size", "embed_dim", "depth", "num_heads")}
    is_clip = converter is convert.clip
    arch |= {"qkv_bias": True, "class_token": True, "init_values": None, "pre_norm": is_clip}
    vit = build_vit(arch | {"act": "quick_gelu" if is_clip else "gelu", "patch_embed_bias": not is_clip}).eval()
    build.load_weights(vit, path.parent / golden["checkpoint"], converter)

    with torch.no_grad():
        features = vit.forward_head(vit.forward_features(torch.from_numpy(numbers["input"])), pre_logits=True)
    torch.testing.assert_close(features, torch.from_numpy(numbers["features"]), atol=ATOL, rtol=0)
    if "pos_embed" in numbers:
        torch.testing.assert_close(vit.pos_embed.detach(), torch.from_numpy(numbers["pos_embed"]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("path", cases("solver", "schedule.json"))
def test_learning_rates(path):
    for case in json.loads(path.read_text())["schedules"]:
        for epoch, expected in enumerate(case["lr_used_in_epoch"]):
            lr = learning_rate("cosine", case["base_lr"], case["warmup_epoch"], case["total_epoch"], epoch)
            assert lr == pytest.approx(expected, abs=1e-12), (case["scheduler"], epoch)


@pytest.mark.parametrize("path", cases("solver", "loss.json"))
def test_loss_normalisation(path):
    case = json.loads(path.read_text())
    logits, targets = torch.tensor(case["logits"]), torch.tensor(case["target"])
    weights = torch.tensor(case["class_weights"])
    assert SoftmaxLoss()(logits, targets).item() == pytest.approx(case["loss_unit_weights"], abs=1e-6)
    assert SoftmaxLoss(weights)(logits, targets).item() == pytest.approx(case["loss_weighted"], abs=1e-6)


def as_vpt_does(config: dict) -> dict:
    """The config under which ours does what VPT does with ``config`` (see the README's table of departures)."""
    config = dict(config)
    if config["OPTIMIZER"] == "adamw" and config["WEIGHT_DECAY"] == 0:
        config["OPTIMIZER"] = "sgd"
    elif config["OPTIMIZER"] == "adamw":
        config |= {"WEIGHT_DECAY": 0.01, "BIAS_MULTIPLIER": 1.0}
    elif config["OPTIMIZER"] == "adam" and config["WEIGHT_DECAY"] == 0:
        config["BIAS_MULTIPLIER"] = 1.0
    return config


def vpt_adamw_step(param: torch.Tensor, grad: torch.Tensor, moments: dict, step: int, lr: float, decay: float) -> None:
    """VPT's AdamW: epsilon is added before the bias correction, and decay follows the step."""
    m, v = moments.setdefault("m", torch.zeros_like(grad)), moments.setdefault("v", torch.zeros_like(grad))
    m.lerp_(grad, 0.1)
    v.lerp_(grad**2, 0.001)
    correction = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    param.sub_(lr * correction * m / (v.sqrt() + 1e-6))
    param.mul_(1 - lr * decay)


@pytest.mark.parametrize("path", cases("solver", "optimizer.json"))
def test_optimizer_steps(path):
    """Our groups with torch's SGD and Adam; for AdamW, whose arithmetic is torch's own, our groups with VPT's steps."""
    content = json.loads(path.read_text())
    for case in content["cases"]:
        named = {}
        for name, about in content["named_parameters"].items():
            count = int(np.prod(about["shape"]))
            value = (torch.arange(1, count + 1) / 10).reshape(about["shape"])
            named[name] = nn.Parameter(value, requires_grad=about["requires_grad"])
        cfg = get_cfg().SOLVER
        cfg.update(as_vpt_does(case["config"]))
        optimizer, moments = build_optimizer(named.items(), cfg), {}
        for step in range(3):
            set_learning_rate(optimizer, cfg.BASE_LR)
            for param in named.values():
                if param.requires_grad:
                    param.grad = torch.cos(torch.arange(param.numel()) + float(step)).reshape(param.shape)
            if cfg.OPTIMIZER != "adamw":
                optimizer.step()
                continue
            assert (optimizer.defaults["eps"], optimizer.defaults["betas"]) == (1e-6, (0.9, 0.999))
            for group in optimizer.param_groups:
                for param in group["params"]:
                    state = moments.setdefault(param, {})
                    vpt_adamw_step(param.data, param.grad, state, step + 1, group["lr"], group["weight_decay"])
        for name, expected in case["params_after_3_steps"].items():
            got = named[name].detach().flatten()
            torch.testing.assert_close(got, torch.tensor(expected), atol=2e-6, rtol=0, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize(
    "change", [{"vqt_num": 3}, {"ft_mlp_mode": "sideways"}, {"adapter_shape": 1}, {"merge_factor": 0.5}]
)
def test_a_case_with_an_unknown_option_fails(change):
    case = {"name": "x", "merge_factor": 1, "activation": "relu", "ft_mlp_module": "adapter", "ft_mlp_ln": "after"}
    case |= {"ft_mlp_mode": "parallel", "adapter_init": "zero", "adapter_bottleneck": 4, "adapter_scaler": 1}
    assert describe_study(case, get_cfg()) == {"adapter": {}}
    with pytest.raises((AssertionError, KeyError)):
        describe_study(case | change, get_cfg())


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ({"name": "lora", "r": 4, "lora_alpha": 8, "scaling": 2.0, "targets": ["attn.v"], "bias": "none"}, {"rank": 4}),
        (
            {"name": "top_k_blocks", "k": 1, "trainable_blocks": [2], "cls_token_trained": False},
            {"trainable_blocks": []},
        ),
        ({"name": "block_expansion", "split": 2, "p": 1, "final_order": [], "expanded_indices": [2]}, {"p": 2}),
        ({"name": "rlrr", "qkv": "fused", "ssf_on": ["norm1"], "residual": True}, {"residual": False}),
        ({"name": "rlrr", "qkv": "fused", "ssf_on": ["norm1"], "residual": True}, {"name": "rlrr_conv"}),
    ],
)
def test_a_case_of_spt_with_an_unknown_option_fails(case, change):
    rest = {
        "lora": {"lora_dropout": 0.0},
        "top_k_blocks": {"final_norm_trained": False},
        "block_expansion": {
            "zeroed_at_init": ["attn.proj.bias", "attn.proj.weight", "mlp.fc2.bias", "mlp.fc2.weight"],
            "trainable": "all tensors of expanded blocks + fresh classifier",
        },
        "rlrr": {"targets": ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]},
    }
    case = case | rest[case["name"]]
    assert len(describe_spt(case, get_cfg())) == 1
    with pytest.raises((AssertionError, KeyError)):
        describe_spt(case | change, get_cfg())


def test_there_are_cases():
    assert all((cases("freqfit"), STUDY, WISE, SPT, SENSITIVITIES, NEIGHBOURS, cases("zoo", "*.golden.json")))
