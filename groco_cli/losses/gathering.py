"""Tensors of every process, with their gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def gathered(own: Tensor) -> Tensor:
    """This tensor of every process, in the processes' order.

    The gradient is summed over processes and flows back to where the tensor came from: where each process has a loss
    of its own, it is that of their sum. torch's own function of this kind is deprecated from 2.15 on.

    Args:
        own: This process's, of the same shape in all.

    Returns:
        [world, *own.shape]
    """
    together: Tensor = _Gathered.apply(own)
    return together


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]
