"""The network that a run exports in formats other than timm's, and the metadata of the file."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from ...engine.checkpoint import Tuned
from ...engine.evaluator import BrokenModel, require_numbers
from ...models.merge import load_merged
from ..finished.run import methods_of
from .plain import Plain, merge

TOLERANCE = 1e-4  # relative to the largest logit, or to 1 if that is smaller; probabilities differ by less
BATCHES = (1, 2, 5)  # batch sizes to check; the network was traced with another


@dataclass(frozen=True)
class Network:
    """Images (B, 3, H, W), float32 and normalised -> logits (B, classes), on the CPU, in eval mode.

    Attributes:
        module: the plain timm model if everything folds, else the tuned ViT with its taps.
        plain: that timm model; None, with the reason in ``why_not``, if there is none.
    """

    module: nn.Module
    plain: Plain | None
    why_not: str
    tuned: Tuned

    @property
    def example(self) -> Tensor:
        """Images for tracing."""
        return self.images(3)

    def images(self, count: int) -> Tensor:
        return self.tuned.pixels.noise(count, seed=count)


def network_of(tuned: Tuned) -> Network:
    """The network of a run, merged if possible.

    Raises:
        BrokenModel: its logits are NaN or infinite.
    """
    try:
        plain, why_not = merge(tuned), ""
    except BrokenModel:
        raise
    except ValueError as error:
        plain, why_not = None, str(error)
    tuned.model.float()  # as before merging
    module: nn.Module = tuned.model
    if plain is not None:
        module = timm.create_model(plain.architecture, num_classes=len(tuned.class_names), **plain.arguments)
        load_merged(module, plain.state)
    return Network(module.eval().requires_grad_(False), plain, why_not, tuned)


@torch.inference_mode()
def check(network: Network, again: Callable[[Tensor], Tensor], what: str) -> float:
    """The largest difference of a file's logits (``again``) from the tuned model's, relative as in TOLERANCE.

    Raises:
        ValueError: it exceeds TOLERANCE, or the file does not accept every batch size.
    """
    largest = 0.0
    for count in BATCHES:
        images = network.images(count)
        expected, logits = require_numbers(network.tuned.model(images), "random images"), again(images)
        if logits.shape != expected.shape:
            raise ValueError(f"{what} gives {tuple(logits.shape)} for {count} images, not {tuple(expected.shape)}")
        error = (logits - expected).abs().max().item() / max(expected.abs().max().item(), 1.0)
        largest = max(largest, error) if error == error else error
    if not largest <= TOLERANCE:
        raise ValueError(f"{what} was not written: its logits differ from the run's by {largest:.1e} of their size")
    return largest


def about(tuned: Tuned) -> dict:
    """Metadata needed to use the file on its own."""
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
