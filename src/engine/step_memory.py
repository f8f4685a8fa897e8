"""What a training step takes in memory, predicted: the step itself runs on shapes alone, and every tensor is counted.

What libraries take beside tensors is not in it, but for cuBLAS's workspace: the driver on a GPU, the interpreter on a
CPU. Nor is what ``torch.compile`` saves.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.amp import GradScaler

from ..models.vit_models import TunedViT
from ..solver.losses import build_loss
from ..solver.optimizer import OPTIMIZERS, build_optimizer
from ..utils.launch import expected
from .held import hold
from .memory import Live, shadow_of
from .precision import autocast
from .step import TrainingStep


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step.

    Attributes:
        weights: of the whole model, with buffers.
        learning: gradients, optimizer states and averages.
        images: of a batch, with their labels.
        activations: what a piece of the batch keeps between forward and backward.
        peak: the most at any moment, with all of these and what comes and goes.
    """

    weights: int
    learning: int
    images: int
    activations: int
    peak: int

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients and states": self.learning, "images": self.images}
        parts |= {"activations": self.activations}
        return f"{shown(self.peak)} ({', '.join(f'{name} {shown(size)}' for name, size in parts.items())})"


def shown(size: float) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"


class Predicted:
    """Predicts what training and evaluating ``model`` takes.

    Args:
        model: may be on the meta device; it stays as it is.

    Attributes:
        shadow: the copy that runs; set what else it does before asking.
    """

    def __init__(self, cfg: CfgNode, model: TunedViT, size: tuple[int, int], device: torch.device):
        self.cfg, self.size = cfg, size
        self.kind = device.type if torch.cuda.is_available() else "cpu"
        self.shadow, self.mode = shadow_of(model, self.kind)
        self.weights = self._weights(device)
        with self.mode:
            named = self.shadow.named_parameters()
            optimizer = build_optimizer(named, self._solver(), fused=self.kind == "cuda", model=self.shadow)
            self.updated = Updated(optimizer)
            with Live(self.shadow) as live:
                self.updated.take(torch.empty_like)
                optimizer.step()  # makes its states
                states = live.bytes - self.updated.nbytes
                live.peak = live.bytes
                optimizer.step()
                self.updating = live.peak - live.bytes
                self.updated.take(None)
        self.states = states + self._averages() + self._exchanged()
        self.workspace = workspace(device)

    def _weights(self, device: torch.device) -> int:
        """Of the model as it trains: see held.py. On a CPU the float32 values of what is held wait beside it."""
        whole = {name: tensor.nbytes for name, tensor in self.shadow.vit.named_parameters()}
        hold(self.shadow, self.cfg, device)
        waiting = {n: whole[n] for n, tensor in self.shadow.vit.named_parameters() if tensor.nbytes != whole[n]}
        now = _bytes((*self.shadow.parameters(), *self.shadow.buffers()))
        return now + (sum(waiting.values()) if device.type == "cpu" else 0)

    def _solver(self) -> CfgNode:
        """Of a step; lbfgs takes none, and the head that it fits is small."""
        if self.cfg.SOLVER.OPTIMIZER in OPTIMIZERS:
            return self.cfg.SOLVER
        solver = self.cfg.SOLVER.clone()
        solver.defrost()
        solver.OPTIMIZER = "sgd"
        return solver

    @property
    def learning(self) -> int:
        """Bytes of gradients, and of all that is there for every trained parameter all the time."""
        return self.states + self.updated.nbytes

    def _averages(self) -> int:
        """Copies of what is learned that the trainer keeps: the moving average, and the best epoch."""
        stops_early = self.cfg.SOLVER.TOTAL_EPOCH > self.cfg.SOLVER.PATIENCE
        return self.updated.nbytes * (bool(self.cfg.SOLVER.EMA) + stops_early)

    def _exchanged(self) -> int:
        """Buckets in which processes exchange gradients."""
        return self.updated.nbytes if expected() > 1 else 0

    def step(self, images: int, pieces: int) -> StepMemory:
        """A step of this process's ``images``, computed in so many pieces."""
        piece = -(-images // pieces)
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.SOLVER.ACCUMULATE = min(pieces, 2)  # all further pieces take what the second does
        seen = []
        real = build_loss(cfg.SOLVER.LOSS, None, cfg.SOLVER.LABEL_SMOOTHING)

        def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
            seen.append(live.bytes)
            return real(logits, targets)

        self.shadow.train()
        with self.mode:
            step = TrainingStep(cfg, self.shadow, self.updated, loss_of, torch.device(self.kind))
            step.scaler = GradScaler(self.kind, enabled=False)  # it asks for values
            with Live(self.shadow) as live:
                given = self._batch(min(images, piece * min(pieces, 2)))
                before = live.bytes
                step(*given)
                peak = max(live.peak, live.bytes + self.updating)
                self.updated.take(None)
        more = images * before // len(given[0]) - before  # of images in further pieces
        return StepMemory(
            weights=self.weights,
            learning=self.learning,
            images=before + more,
            activations=seen[0] - before,
            peak=self.weights + self.states + self.workspace + more + peak,
        )

    def _batch(self, images: int) -> tuple[Tensor, Tensor]:
        mixed = self.cfg.DATA.MIXUP or self.cfg.DATA.CUTMIX
        shape = (images, self.shadow.num_classes) if mixed else (images,)
        targets = torch.empty(shape, dtype=torch.float32 if mixed else torch.int64, device=self.kind)
        return torch.empty(images, 3, *self.size, device=self.kind), targets

    def evaluation(self, images: int) -> int:
        """The most that evaluating so many images at a time takes between two epochs."""
        self.shadow.eval()
        with self.mode, torch.no_grad(), Live(self.shadow) as live, autocast(self.cfg, torch.device(self.kind)):
            self.shadow(self._batch(images)[0])
        return self.weights + self.learning + self.workspace + live.peak


def workspace(device: torch.device) -> int:
    """Bytes that cuBLAS works in, which torch takes from the memory that it counts.

    They are what CUBLAS_WORKSPACE_CONFIG says in KiB, ":size:count" once or more, or torch's defaults.
    """
    if device.type != "cuda":
        return 0
    default = ":4096:8" if torch.cuda.get_device_capability(device)[0] >= 9 else ":4096:2:16:8"
    numbers = os.environ.get("CUBLAS_WORKSPACE_CONFIG", default).strip(":").split(":")
    return 1024 * sum(int(size) * int(count) for size, count in zip(numbers[::2], numbers[1::2], strict=False))


class Updated:
    """In the place of an optimizer that has been tried: it has the trained parameters, and does nothing."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.param_groups = optimizer.param_groups
        self.params = [param for group in optimizer.param_groups for param in group["params"]]
        self.nbytes = _bytes(self.params)

    def take(self, gradient: Callable[[Tensor], Tensor] | None) -> None:
        """Give every parameter a gradient, or none."""
        for param in self.params:
            param.grad = gradient(param) if gradient else None

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.take(None)

    def step(self) -> None:
        pass


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of distinct storages."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
