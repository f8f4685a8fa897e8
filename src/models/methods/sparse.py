"""Sparse updates: single entries of a frozen weight that train, with memory for them and not for the weight (SPT)."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class SparseUpdate(nn.Module):
    """In place of a linear map: the same with single entries of its weight and bias moved, from where they were.

    ``weight`` (n,) and ``bias`` (m,) are what is added at the flat positions ``weight_index`` and ``bias_index``.
    """

    def __init__(self, linear: nn.Linear, weight_index: Tensor, bias_index: Tensor):
        super().__init__()
        self.linear = (linear,)  # in a tuple: this tap does not own it
        self.weight = nn.Parameter(linear.weight.new_zeros(len(weight_index))) if len(weight_index) else None
        self.bias = nn.Parameter(linear.weight.new_zeros(len(bias_index))) if len(bias_index) else None
        row, col = weight_index // linear.in_features, weight_index % linear.in_features
        rows, row_place = _used(row, linear.out_features)
        cols, col_place = _used(col, linear.in_features)
        place = row_place * (linear.in_features if cols is None else len(cols)) + col_place
        tables = {"index": weight_index, "rows": rows, "cols": cols, "place": place, "bias_index": bias_index}
        for name, table in tables.items():
            self.register_buffer(name, None if table is None else table.to(linear.weight.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        (linear,) = self.linear
        bias = linear.bias
        if self.bias is not None:
            bias = bias.index_add(0, self.bias_index, self.bias)
        if self.weight is None:
            return F.linear(x, linear.weight, bias)
        if linear.weight.requires_grad:  # another method trains it as a whole
            return F.linear(x, with_entries(linear.weight, self.weight, self.index, linear.weight.dtype), bias)
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):  # on meta there are only shapes to see
            x = x.to(torch.get_autocast_dtype(x.device.type))
        bias = None if bias is None else bias.to(x.dtype)
        tables = (self.index, self.rows, self.cols, self.place)
        # Two-dimensional: of more dimensions it would be a view, in which no module could then work in place.
        y = SparseLinear.apply(x.flatten(0, -2), linear.weight, self.weight, bias, *tables)
        return y.unflatten(0, x.shape[:-1])


class SparseLinear(torch.autograd.Function):
    """x (W + S)^T + b, x (N, in), for a frozen W and an S of few entries, without keeping anything of W's size.

    For the gradient of the entries only those columns of x are kept that an entry reads, and only the rows and columns
    that have entries are multiplied; ``rows`` and ``cols`` are None where that is most of them.
    """

    @staticmethod
    def forward(ctx, x, weight, values, bias, index, rows, cols, place):
        ctx.save_for_backward(_chosen(x, cols), weight, values, index, rows, place)
        return F.linear(x, with_entries(weight, values, index, x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x_cols, weight, values, index, rows, place = ctx.saved_tensors
        dx = dy @ with_entries(weight, values, index, dy.dtype)
        block = _chosen(dy, rows).T @ x_cols
        d_bias = dy.sum(0) if ctx.needs_input_grad[3] else None
        return dx, None, block.flatten()[place].to(values.dtype), d_bias, None, None, None, None


def _chosen(x: Tensor, channels: Tensor | None) -> Tensor:
    return x if channels is None else x.index_select(-1, channels)


def with_entries(weight: Tensor, values: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """``weight`` with ``values`` added at the flat positions ``index``, as a new tensor."""
    return weight.flatten().index_add(0, index, values.to(weight.dtype)).view_as(weight).to(dtype)


def _used(channels: Tensor, count: int) -> tuple[Tensor | None, Tensor]:
    """The channels that occur, None for all if most do, and each one's position among them."""
    used, place = channels.unique(return_inverse=True)
    return (None, channels) if 2 * len(used) > count else (used, place)
