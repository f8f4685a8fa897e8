"""Every method takes a step as on a GPU: all of it there, without waiting, in float32 at most."""

import copy
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from no_waiting import Fault, OnDevice, moved
from torch import nn

from src.configs.config import get_cfg
from src.configs.methods import parse
from src.engine.step import TrainingStep
from src.models.families import family_of
from src.models.methods import freqfit
from src.models.vit_models import FREQFIT_METHODS, METHODS, TunedViT
from src.solver.losses import build_loss
from src.solver.optimizer import build_optimizer
from src.tools.list import matrix
from src.tools.list.cells import REFUSED, make_small

ALL = matrix.specimens()
FOUND = matrix.read()
NAMES = [name for name in METHODS if name not in FREQFIT_METHODS.values()]


def working(title: str) -> list[str]:
    return [name for name in NAMES if FOUND[title][name].mark != REFUSED]


# The first specimen of each family; one of the convolutional ones, which share their code.
FAMILIES = {specimen.family(): title for title, specimen in reversed(ALL.items())}
FAMILIES = {family: title for family, title in FAMILIES.items() if "adapter" in working(title) or title == "ResNet"}
# Methods of peft wait in every step: where.
WAITING = {"fft": "indices on the CPU", "boft": "asks whether a matrix could be inverted"}
# timm's own attention waits: where.
NETWORKS_WAITING = {"SAM": "looks up relative positions by numbers on the CPU"}
# What does not go into one network with all the rest.
APART = (("vqt", "spt_adapter"), ("peft",), ("vera",))


@cache
def network(title: str) -> nn.Module:
    fixed = {"dynamic_img_size": False} if ALL[title].family() == "Eva" else {}  # as our backbones are built
    return ALL[title].build(**fixed).float()


def model_of(title: str, names: str, freqfit_: str, folder: Path) -> TunedViT:
    cfg = get_cfg().MODEL
    for name in parse(names):
        make_small(cfg, name, ALL[title], folder)
    return moved(TunedViT(copy.deepcopy(network(title)), parse(names, freqfit_), cfg, 3), "meta")


def step(model: TunedViT) -> None:
    """Forward, loss, backward, clipping and optimizer, by the trainer's own step."""
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.CLIP_GRAD = "sgd", 1.0
    optimizer = build_optimizer(model.named_parameters(), cfg.SOLVER, model=model)
    taken = TrainingStep(cfg, model, optimizer, build_loss("softmax", None, 0.0), torch.device("cpu"))
    size = (64, 64) if family_of(model.vit).any_size else family_of(model.vit).image_size(model.vit)
    images, labels = torch.empty(2, 3, *size, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    with OnDevice():
        taken(images, labels)


def take(title: str, names: str, freqfit_: str, folder: Path) -> None:
    """A step, which waits only where someone else is known to be to blame."""
    model = model_of(title, names, freqfit_, folder)
    waits = title in NETWORKS_WAITING or WAITING.keys() & parse(names).keys()
    with pytest.raises(Fault) if waits else nullcontext():
        step(model)


def together(title: str) -> list[str]:
    """The methods that work on a network, in as few mixes as possible."""
    works = [name for name in working(title) if name not in (*WAITING, "end2end")]  # end2end is tried alone
    apart = [[name for name in some if name in works] for some in APART]
    mixes = [[name for name in works if not any(name in some for some in apart)], *apart]
    return ["+".join(names) for names in mixes if names]


@pytest.mark.parametrize("name", NAMES)
def test_no_method_waits(name, tmp_path):
    take("ViT", name, "", tmp_path)


@pytest.mark.parametrize("freqfit_", FREQFIT_METHODS)
def test_no_method_waits_with_freqfit(freqfit_, tmp_path, monkeypatch):
    monkeypatch.setitem(freqfit.MATRIX_LIMIT, "meta", 400)  # as on a GPU
    for names in together("ViT"):
        take("ViT", names, freqfit_, tmp_path)


@pytest.mark.parametrize("title", FAMILIES.values(), ids=FAMILIES)
def test_no_method_waits_on_other_networks(title, tmp_path):
    for names in together(title):
        take(title, names, "freqfit" if FOUND[title]["freqfit"].mark != REFUSED else "", tmp_path)
