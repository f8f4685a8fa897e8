"""What this machine's hardware supports."""

import torch


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices; others emulate it, at least twice as slow as float32."""
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)
