"""A tiny random ViT and configs for it: 3 blocks, 32 channels, 4x4 patches, a second per test."""

import os

import collecting  # noqa: F401 - before all that is large

# isort: split
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test fetches anything
os.environ["OMP_NUM_THREADS"] = "1"  # models this small gain nothing from more threads, and lose much on a busy machine

from functools import cache

import pytest
import torch
from copies import Copies
from fvcore.common.config import CfgNode
from scratch import scratch_file, scratch_folder
from timm.models.vision_transformer import VisionTransformer

from src.configs.config import get_cfg
from src.models.allocation import Rules, allocate, pieces
from src.models.methods.spt import SPT
from src.models.vit_models import METHODS, TunedViT, config_name, parse

os.environ["XDG_CACHE_HOME"] = str(scratch_folder() / "cache")  # where decoded images are kept
DEVICE = os.environ.get("TEST_DEVICE", "cpu")  # where the parity cases and FreqFit's two forms are computed


def make_vit(**arguments) -> VisionTransformer:
    """The tiny ViT with weights of its own kind of randomness: no bias or norm is left at its initial 0 or 1."""
    copies, state = _vit(**arguments)
    torch.set_rng_state(state)
    return copies()


@cache
def _vit(**arguments) -> tuple[Copies, torch.Tensor]:
    """Copies of it, and the state in which making it leaves the random numbers."""
    torch.manual_seed(1)
    tiny = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0)
    vit = VisionTransformer(**{**tiny, **arguments})
    for param in vit.parameters():
        param.data.add_(0.05 * torch.randn_like(param))
    return Copies(vit.eval()), torch.get_rng_state()


def make_model(transfer_type: str, freqfit: str = "", vit: VisionTransformer | None = None, **keys) -> TunedViT:
    """The tiny ViT tuned by a method; ``keys`` are config keys with "__" for ".": ``MODEL__LORA__RANK=4``."""
    cfg = make_cfg(**keys)
    vit = vit if vit is not None else make_vit()
    for name in parse(transfer_type):
        if not issubclass(METHODS[name], SPT):
            continue
        node = cfg.MODEL[config_name(name)]
        node.ALLOCATION = node.ALLOCATION or make_allocation(vit, METHODS[name].rules(node, vit))
    torch.manual_seed(2)
    return TunedViT(vit, parse(transfer_type, freqfit), cfg.MODEL, num_classes=5).eval()


def make_allocation(vit: VisionTransformer, rules: Rules, budget: float = 3000.0) -> str:
    """A file with an allocation from sensitivities that vary between tensors and within them."""
    generator = torch.Generator().manual_seed(4)
    random = {
        n: torch.rand(p.shape, generator=generator) * torch.rand((), generator=generator)
        for n, p in pieces(vit).items()
    }
    path = scratch_file("allocation.safetensors")
    allocate(vit, random, rules, budget).save(path)
    return str(path)


def make_cfg(**keys) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.SIDE.WEIGHTS = ""
    for name, value in keys.items():
        *path, last = name.split("__")
        node = cfg
        for part in path:
            node = node[part]
        assert last in node, name
        node[last] = value
    return cfg


def randomise(model: TunedViT, scale: float = 0.1) -> None:
    """Move every trained parameter away from its start, so that zero-initialised paths do something."""
    generator = torch.Generator().manual_seed(3)
    for param in model.parameters():
        if param.requires_grad:
            param.data.add_(scale * torch.randn(param.shape, generator=generator))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
