"""The network that a run exports where timm's format is not asked for, and what a file says about it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from ...engine.checkpoint import Tuned
from ...engine.evaluator import BrokenModel, require_numbers
from ..finished.run import methods_of
from .plain import Plain, merge

TOLERANCE = 1e-4  # of the logits' size, or of 1 where they are smaller: probabilities then differ by less
BATCHES = (1, 2, 5)  # the sizes a file is tried with; it was traced with another


@dataclass(frozen=True)
class Network:
    """Images (B, 3, H, W), float32 and normalised -> logits (B, classes), on the CPU, in eval mode.

    Attributes:
        module: the plain timm model where what was learned folds, else the tuned ViT with its taps.
        plain: that timm model; None where ``why_not`` says why there is none.
    """

    module: nn.Module
    plain: Plain | None
    why_not: str
    tuned: Tuned

    @property
    def example(self) -> Tensor:
        """Images to trace it with."""
        return self.images(3)

    def images(self, count: int) -> Tensor:
        return torch.randn(count, 3, *self.tuned.pixels.size, generator=torch.Generator().manual_seed(count))


def network_of(tuned: Tuned) -> Network:
    """Merged where it folds.

    Raises:
        BrokenModel: its logits are no numbers.
    """
    try:
        plain, why_not = merge(tuned), ""
    except BrokenModel:
        raise
    except ValueError as error:
        plain, why_not = None, str(error)
    tuned.model.float()  # as it was before it was merged
    module: nn.Module = tuned.model
    if plain is not None:
        module = timm.create_model(plain.architecture, num_classes=len(tuned.class_names), **plain.arguments)
        module.load_state_dict(plain.state)
    return Network(module.eval().requires_grad_(False), plain, why_not, tuned)


@torch.inference_mode()
def check(network: Network, again: Callable[[Tensor], Tensor], what: str) -> float:
    """The largest difference between the tuned model's logits and those of a file, ``again``, measured as TOLERANCE is.

    Raises:
        ValueError: it is more than TOLERANCE, or the file does not take batches of every size.
    """
    largest = 0.0
    for count in BATCHES:
        images = network.images(count)
        wanted, found = require_numbers(network.tuned.model(images), "random images"), again(images)
        if found.shape != wanted.shape:
            raise ValueError(f"{what} gives {tuple(found.shape)} for {count} images, not {tuple(wanted.shape)}")
        error = (found - wanted).abs().max().item() / max(wanted.abs().max().item(), 1.0)
        largest = max(largest, error) if error == error else error
    if not largest <= TOLERANCE:
        raise ValueError(f"{what} is not written: its logits differ from the run's by {largest:.1e} of their size")
    return largest


def about(tuned: Tuned) -> dict:
    """What whoever has only the file must know."""
    pixels, cfg = tuned.pixels, tuned.cfg
    return {
        "made_by": "ViTune",
        "backbone": cfg.DATA.FEATURE,
        "methods": methods_of(cfg),
        "task": cfg.DATA.NAME,
        "class_names": tuned.class_names,
        "input": "float32 (batch, 3, height, width): RGB in [0, 1], minus mean, divided by std",
        "output": "logits (batch, classes)",
        "probabilities": "sigmoid" if cfg.SOLVER.LOSS == "sigmoid" else "softmax",
        "size": list(pixels.size),
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "pixels": dataclasses.asdict(pixels),
    }
