"""A run's numerical precision, and whether it must be reproducible bit for bit."""

import logging
import os
import warnings

import torch
from fvcore.common.config import CfgNode

from ..utils.hardware import cpu_has_bfloat16

logger = logging.getLogger(__name__)

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_amp(amp: str, device: torch.device) -> str:
    """``SOLVER.AMP`` with "auto" resolved for this device: "bf16", "fp16" or "off".

    Raises:
        ValueError: bf16 on a GPU without it.
    """
    if amp == "auto" and device.type == "cpu":
        return "bf16" if cpu_has_bfloat16() else "off"
    has_bf16 = device.type != "cuda" or _gpu_has_bfloat16(device)
    if amp == "auto":
        return "bf16" if has_bf16 else "fp16"
    if amp == "bf16" and not has_bf16:
        raise ValueError(f"SOLVER.AMP bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use fp16, or auto")
    return amp


def _gpu_has_bfloat16(device: torch.device) -> bool:
    with torch.cuda.device(device):  # torch asks the current GPU
        return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(cfg: CfgNode, device: torch.device) -> torch.autocast:
    """The precision of ``SOLVER.AMP``, as a context manager that can be re-entered."""
    amp = resolve_amp(cfg.SOLVER.AMP, device)
    return torch.autocast(device.type, TYPES.get(amp), enabled=amp in TYPES)


def how_computed(cfg: CfgNode, device: torch.device) -> dict:
    """What determines the last bits of a result on this machine, to tell cached results apart."""
    return {
        "precision": resolve_amp(cfg.SOLVER.AMP, device),
        "matmul": torch.get_float32_matmul_precision(),
        "device": device.type,
        "torch": torch.__version__,
    }


def gradient_scaler(cfg: CfgNode, device: torch.device) -> torch.amp.GradScaler:
    """Keeps float16 gradients from vanishing; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=resolve_amp(cfg.SOLVER.AMP, device) == "fp16")


def set_backends(cfg: CfgNode, device: torch.device) -> None:
    """``SOLVER.TF32``, ``DETERMINISTIC`` and ``CUDNN_BENCHMARK`` for this process."""
    if resolve_amp(cfg.SOLVER.AMP, device) != "off" and device.type == "cpu" and not cpu_has_bfloat16():
        logger.warning("note: this CPU only emulates SOLVER.AMP %s: off or auto is faster", cfg.SOLVER.AMP)
    if cfg.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first use of the GPU
    torch.use_deterministic_algorithms(cfg.DETERMINISTIC)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a kernel for every tensor, and nothing reads such
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not cfg.DETERMINISTIC
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)  # for what is asked of "the GPU", and nothing is kept on another one
        with warnings.catch_warnings():  # their newer names do not exist in torch 2.6
            warnings.simplefilter("ignore")
            torch.backends.cuda.matmul.allow_tf32 = cfg.SOLVER.TF32
            torch.backends.cudnn.allow_tf32 = cfg.SOLVER.TF32
