"""One training step: forward, loss, backward, optimizer; used for training and for benchmarks."""

import functools
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from ..models.memo import Memo
from ..models.sites import blocks
from ..models.vit_models import TunedViT
from ..utils import distributed
from .precision import autocast, gradient_scaler


class TrainingStep:
    """One optimizer step on one batch; returns the batch's mean loss, still on the device.

    Nothing here waits for the GPU. With several processes, each passes its part of the batch and gets its part of the
    loss, and all take the same step.

    Args:
        network: on ``device``; ``optimizer`` holds its trained parameters.
        loss_of: (logits, targets) -> their mean loss.
    """

    def __init__(self, cfg: CfgNode, network: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable, device):
        self.network = network
        self.optimizer = optimizer
        self.loss_of = loss_of
        self.accumulate = cfg.SOLVER.ACCUMULATE
        self.clip = cfg.SOLVER.CLIP_GRAD
        self.autocast = autocast(cfg, device)
        self.scaler = gradient_scaler(cfg, device)
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, images: Tensor, targets: Tensor, batch_size: int = 0) -> Tensor:
        """``batch_size``: size of the whole batch, if these images are only a part of it."""
        rank, processes = distributed.part()
        whole = batch_size or len(targets)
        mine = len(range(rank, whole, processes)) if batch_size else len(targets)  # 0: the only image is padding
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=images.device)
        count = max(1, min(self.accumulate, len(targets) // 2))  # at least two images per piece, as in split_batches
        pieces = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
        for number, (some_images, some_targets) in enumerate(pieces, start=1):
            with self._synchronised(last=number == count):
                with self.autocast:
                    logits = self.network(some_images)
                share = mine / whole * len(some_targets) / len(targets)
                loss = self.loss_of(logits.float(), some_targets) * share
                self.scaler.scale(loss * processes).backward()  # gradients are averaged over processes
            total += loss.detach()
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total

    def _synchronised(self, last: bool):
        """Average gradients over processes only with the last piece of a batch."""
        if isinstance(self.network, FSDPModule):
            self.network.set_requires_gradient_sync(last)
        elif isinstance(self.network, DistributedDataParallel) and not last:
            return self.network.no_sync()
        return nullcontext()


def compiled(network: nn.Module, cfg: CfgNode, memo: Memo | None = None) -> nn.Module:
    """The network, compiled if ``MODEL.COMPILE`` is set, with ``MODEL.COMPILE_MODE``; once per batch size.

    Args:
        memo: where the compiled network is kept for later runs with this model.
    """
    if not cfg.MODEL.COMPILE:
        return network
    # Taps that keep something do so in the forward pass alone, whether or not its block is computed again.
    torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    compile_it = functools.partial(torch.compile, network, mode=cfg.MODEL.COMPILE_MODE, dynamic=False)
    return (memo or Memo()).network(("compiled", network), compile_it)


def require_compiler(cfg: CfgNode, device: torch.device) -> None:
    """Raise ValueError if ``MODEL.COMPILE`` is set and this machine cannot compile."""
    if not cfg.MODEL.COMPILE:
        return
    names = (os.environ.get("CXX"), os.environ.get("CC"), "g++", "clang++", "c++", "gcc", "clang", "cc")
    if not any(shutil.which(name) for name in names if name):
        raise ValueError(
            "MODEL.COMPILE needs a C++ compiler, but none is on the PATH: install g++, or leave MODEL.COMPILE out"
        )
    if device.type == "cpu" and not has_vector_code():
        raise ValueError(
            "MODEL.COMPILE: torch's compiler needs vector instructions (AVX2, AVX-512, NEON, ...) that this "
            "CPU lacks or ATEN_CPU_CAPABILITY disables: leave MODEL.COMPILE out"
        )


def has_vector_code() -> bool:
    """Whether torch.compile supports this CPU's vector instructions; its code without them does not compile."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa  # imported here: it takes a second

    return bool(pick_vec_isa())


def over_processes(network: nn.Module, device: torch.device, some_unreached: bool) -> nn.Module:
    """The network with gradients averaged over all processes; with one process, or sharded, the network itself."""
    if distributed.count() == 1 or isinstance(network, FSDPModule):
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, devices, broadcast_buffers=False, find_unused_parameters=some_unreached)


def shard(model: TunedViT) -> None:
    """Shard weights, gradients and optimizer states over all processes, if any, block by block (FSDP2)."""
    if distributed.count() > 1:
        for block in blocks(model.vit).values():
            fully_shard(block)
        fully_shard(model)


def some_unreached(network: nn.Module, images: Tensor, trained: list[nn.Parameter]) -> bool:
    """Whether some trained parameters get no gradient, for which other processes must not wait."""
    network.eval()
    network(images).float().sum().backward()
    missing = any(param.grad is None for param in trained)
    for param in trained:
        param.grad = None
    return missing


def with_shared_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norms synchronised over all processes.

    Raises:
        ValueError: there are batch norms, which torch cannot synchronise on a CPU.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    if distributed.count() == 1 or not norms:
        return network
    if device.type == "cpu":
        raise ValueError("MODEL.MLP_NUM gives the head batch norms, which processes can synchronise only on GPUs")
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)
