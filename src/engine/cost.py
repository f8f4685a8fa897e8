"""What a run costs: parameters, arithmetic, speed, memory, disk and time, as text and for result.json."""

import logging
import resource
import sys
import warnings

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..configs.facts import image_size
from ..models.vit_models import TunedViT
from ..utils import distributed
from .budget import Plan
from .checkpoint import learned_size
from .memory import activation_bytes
from .precision import TYPES, resolve_amp

logger = logging.getLogger(__name__)


def cost_card(
    model: TunedViT,
    flops_per_image: int | None,
    activations: int | None,
    rates: dict,
    seconds: dict,
    plan: Plan | None = None,
) -> dict:
    """Everything needed for a table of costs.

    Args:
        activations: bytes of an image.
        plan: how the run stayed within SOLVER.MEMORY_GB.
        rates: images per second per phase, over all processes.
        seconds: wall time per phase.
    """
    trained = model.num_trained()
    device = next(model.parameters()).device
    return {
        "parameters": {"with_head": sum(trained.values()), "without_head": sum(trained.values()) - trained["head"]},
        "flops_per_image": flops_per_image,
        "activation_bytes_per_image": activations,
        "images_per_second": rates,
        "peak_memory_bytes": peak_memory(device),
        "peak_memory_of": "the GPU's" if device.type == "cuda" else "the process's",
        "predicted_peak_bytes": plan and plan.peak,
        "plan": plan and plan.settings,
        "learned_bytes": learned_size(model),
        "processes": distributed.count(),
        "seconds": seconds,
    }


def describe(cost: dict) -> str:
    """The card in a few lines."""
    arithmetic = f"{cost['flops_per_image'] / 1e9:.3g} GFLOPs" if cost["flops_per_image"] else "FLOPs unknown"
    kept = cost["activation_bytes_per_image"]
    kept = "activations unknown" if kept is None else f"{kept / 2**20:.3g} MiB of activations"
    rates = [f"{rate:,.0f} images/s in {name}" for name, rate in cost["images_per_second"].items() if rate]
    spent = [f"{name.replace('_', ' ')} {value:.1f} s" for name, value in cost["seconds"].items() if value >= 0.05]
    parameters = cost["parameters"]
    lines = [
        f"{parameters['without_head']:,} trained parameters, {parameters['with_head']:,} with the head; "
        f"{cost['learned_bytes'] / 2**20:.2f} MiB learned; {arithmetic} and {kept} per image",
        ", ".join([*rates, f"{cost['peak_memory_of']} memory peaked at {cost['peak_memory_bytes'] / 2**30:.2f} GiB"]),
        ", ".join(spent),
    ]
    return "\n".join(f"cost: {line}" for line in lines if line)


def flops(model: nn.Module, size: tuple[int, int]) -> int | None:
    """Multiply-adds of one image's forward pass (FLOPs in papers), as counted by fvcore: those of matrix products,
    convolutions, norms and attention. None if the model cannot be traced."""
    training, trained = model.training, [param for param in model.parameters() if param.requires_grad]
    model.eval().requires_grad_(False)  # tracing makes constants of tensors outside modules
    # One image: fvcore counts products of weights alone once per batch.
    image = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # fvcore traces with a deprecated part of torch
            from fvcore.nn import FlopCountAnalysis

            count = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            count.set_op_handle("aten::scaled_dot_product_attention", _attention)
            count.set_op_handle("prim::PythonOp.SparseLinear", _linear)
            return int(count.tracer_warnings("none").total())
    except Exception as error:  # tracing may fail anywhere in third-party modules; not a reason to stop a run
        logger.warning("note: FLOPs are not counted: %s", str(error).splitlines()[0] if str(error) else repr(error))
        return None
    finally:
        model.train(training)
        for param in trained:
            param.requires_grad = True


def activations_per_image(cfg: CfgNode, model: TunedViT, device: torch.device) -> int | None:
    """Bytes that training keeps of an image between forward and backward; None where they cannot be counted."""
    try:
        dtype = TYPES.get(resolve_amp(cfg.SOLVER.AMP, device))
        return activation_bytes(model, image_size(cfg), device, dtype).per_image
    except Exception as error:  # shapes alone may not do in third-party modules; not a reason to stop a run
        logger.warning(
            "note: activations are not counted: %s", str(error).splitlines()[0] if str(error) else repr(error)
        )
        return None


def _linear(inputs: list, outputs: list) -> int:
    """(..., in) -> (..., out)."""
    return torch.Size(inputs[0].type().sizes()).numel() * outputs[0].type().sizes()[-1]


def _attention(inputs: list, outputs: list) -> int:
    """Queries times keys, then weights times values: (B, heads, N, d) with (B, heads, M, d)."""
    *batch, queries, dim = inputs[0].type().sizes()
    keys = inputs[1].type().sizes()[-2]
    return 2 * torch.Size(batch).numel() * queries * keys * dim


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU, the maximum allocated by tensors; on a CPU, the maximum resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
