"""A training step with every tuner of peft: through MODEL.PEFT and our own methods, and peft alone in a plain loop."""

import argparse
import copy

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ...engine.precision import set_backends
from ...models.hf_peft.catalogue import find_tuner, quiet, tuners
from ...models.vit_models import TunedViT, parse
from ...utils.plots import bar_chart
from ...utils.progress import tqdm
from . import common
from .common import CLASSES, Report, Work
from .step import our_step, plain_step

# What both sides are given beside the targets; other tuners start from peft's own defaults.
ARGUMENTS = {
    "BOFT": {"boft_block_size": 4},
    "FOURIERFT": {"n_frequency": 3000},
    "HRA": {"r": 8},
    "IA3": {"feedforward_modules": []},
    "LOHA": {"r": 8},
    "LOKR": {"r": 8},
    "LORA": {"r": 8, "lora_alpha": 8},
    "VERA": {"r": 256},
}
TARGET = "attn.qkv"
# Methods of our own that do what a tuner of peft does, with the keys that make them equal.
OWN = {"LORA": ("lora", ["MODEL.LORA.TARGETS", f"[{TARGET}]", "MODEL.LORA.RANK", "8", "MODEL.LORA.ALPHA", "8"])}


def run(args: argparse.Namespace) -> Report:
    device = common.use(args)
    kinds = [find_tuner(name) for name in args.tuners]
    shared = common.config(args, [])
    set_backends(shared, device)
    images, labels = common.image_batch(shared, args.batch, device)
    rows = {}
    for kind in tqdm(kinds, unit="tuner", leave=False, dynamic_ncols=True):
        rows |= _compare(kind, args, images, labels)
    ratios = {name: row["times_as_fast"] for name, row in rows.items()}
    return Report(
        _text(rows, common.conditions(args, device)),
        {"backbone": args.backbone, "batch": args.batch, "contenders": rows},
        lambda path: bar_chart(ratios, f"A training step of {args.backbone}", "times as fast as peft alone", path),
    )


def _compare(kind: str, args: argparse.Namespace, images: Tensor, labels: Tensor) -> dict[str, dict]:
    """The rows of one tuner: through MODEL.PEFT and, where we have it, as our own method."""
    settings = {f"{kind}, MODEL.PEFT": ("peft", ["MODEL.PEFT.TYPE", kind, "MODEL.PEFT.TARGETS", f"[{TARGET}]"])}
    if kind in OWN:
        settings[f"{kind}, our {OWN[kind][0]}"] = OWN[kind]
    alone = f"{kind}, peft alone"

    def ours(method: str, keys: list[str]) -> Work:
        cfg = common.config(args, ["MODEL.TRANSFER_TYPE", method, *keys])
        if method == "peft":
            cfg.defrost()
            cfg.MODEL.PEFT.KWARGS = CfgNode(copy.deepcopy(ARGUMENTS.get(kind, {})), new_allowed=True)
        vit = common.random_vit(cfg)
        return our_step(TunedViT(vit, parse(method), cfg.MODEL, CLASSES).to(images.device), cfg, images, labels)

    def peft_alone() -> Work:
        cfg = common.config(args, [])
        return plain_step(wrapped(kind, common.random_vit(cfg, CLASSES)).to(images.device), cfg, images, labels)

    makers = {name: lambda given=given: ours(*given) for name, given in settings.items()} | {alone: peft_alone}
    timings = common.take_turns(makers, args.rounds, images.device)
    return {
        name: {
            **common.compared(timings, name, alone),
            **timings[name].as_dict(),
            "seconds_alone": timings[alone].seconds,
        }
        for name in settings
    }


def wrapped(kind: str, vit: nn.Module) -> nn.Module:
    """``vit`` in peft's own model with this tuner on q, k and v, and a head that trains; in training mode."""
    from peft import get_peft_model  # imported here: it imports transformers

    with quiet():
        model = get_peft_model(vit, tuners()[kind](target_modules=["qkv"], **copy.deepcopy(ARGUMENTS.get(kind, {}))))
    vit.get_classifier().requires_grad_(True)
    return model.train()


def _text(rows: dict[str, dict], conditions: str) -> str:
    lines = [
        [name, common.ratio_text(row), f"{row['seconds']:.4g}", f"{row['seconds_alone']:.4g}"]
        for name, row in rows.items()
    ]
    table = common.markdown(["one training step", "times peft alone", "s", "peft alone, s"], lines)
    return f"{table}\n\nTargets: {TARGET}, and a head that trains, on both sides. {conditions}.\n"
