"""Counting work: fvcore's multiply-adds of a forward, and the operations that a training step really does."""

import warnings
from collections import Counter
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def forward_multiply_adds(model: nn.Module, image: Tensor) -> int:
    """fvcore's count for one image (1, 3, H, W): multiply-adds of linear maps, convolutions, products and attention.

    Its norms count too, as fvcore has them (5 per element). FFTs and what is done element by element count nothing.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit, already when it is imported: deprecated, and talkative
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
        return int(analysis.total())


def _attention(inputs: list, outputs: list) -> Counter:
    """q (..., N, d), k (..., M, d), v (..., M, e): N M d multiply-adds for the weights, N M e for their sum."""
    q, k, v = (value.type().sizes() for value in inputs[:3])
    return Counter(attention=prod(q[:-1]) * k[-2] * (q[-1] + v[-1]))


def step_operations(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Operations (a multiply-add is two) of one forward and backward, as torch dispatches them.

    So frozen weights cost no gradient of their own, while the gradients of activations that pass them are paid for.
    Matrix products and convolutions only; attention as its products, so without what a fused kernel computes twice.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        nn.functional.cross_entropy(model(images), labels).backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()
