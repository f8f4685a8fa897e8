"""What this machine can do."""

import torch


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices in bfloat16; others emulate it, in twice the time of float32 or more."""
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)
