"""Convolutions on maps with no more places than the kernel has taps, as matrix products.

A 32-pixel picture leaves a ResNet's ImageNet stem as 8×8, and its last stages are 2×2 and 1×1. There most taps of a
3×3 kernel see nothing but padding, and the libraries below multiply those zeros all the same. Written out, such a
convolution is one matrix from all input places to all output places, of which each block is the tap that joins the
two. The function is the same; on two CPU cores a ResNet-18's step at 32 pixels takes half the time
(docs/benchmarks.md).
"""

from functools import lru_cache
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Pair = tuple[int, int]


class SmallMapConv2d(nn.Conv2d):
    """`Conv2d`, its weights and results, computed as a matrix product where the map is small."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C, H, W]."""
        height, width = input.shape[-2:]
        kernel_height, kernel_width = self.kernel_size
        if height * width > kernel_height * kernel_width:
            return super().forward(input)
        padding = cast("_Pair", self.padding)  # never the name of a mode: see below
        shape = (height, width), self.kernel_size, self.stride, padding, self.dilation
        rows, columns = (_outputs(*axis) for axis in zip(*shape, strict=True))
        blocks = F.pad(self.weight.flatten(2).permute(2, 0, 1), (0, 0, 0, 0, 0, 1))  # [taps + 1, out, in]
        blocks = blocks.index_select(0, _taps(*shape, input.device))
        matrix = blocks.view(-1, height * width, *blocks.shape[1:]).transpose(1, 2)  # [outputs, out, inputs, in]
        pixels = input.permute(0, 2, 3, 1).flatten(1)  # as they lie in channels-last memory
        output = F.linear(pixels, matrix.flatten(2).flatten(0, 1))
        output = output.view(len(input), rows, columns, self.out_channels)
        return (output if self.bias is None else output + self.bias).permute(0, 3, 1, 2)


def multiply_small_maps(model: nn.Module) -> None:
    """Make every plain convolution of a model a `SmallMapConv2d`, weights and names unchanged."""
    for module in model.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
        if plain and not isinstance(module.padding, str):
            module.__class__ = SmallMapConv2d  # it differs in `forward` alone


@lru_cache(maxsize=1024)
def _taps(
    map_size: _Pair, kernel: _Pair, stride: _Pair, padding: _Pair, dilation: _Pair, device: torch.device
) -> Tensor:
    """The tap that joins each pair of an output and an input place, int64 [outputs · inputs], kept on the device.

    Behind the last tap stands a zero, for pairs that none joins.
    """
    rows, columns = (_along(*axis) for axis in zip(map_size, kernel, stride, padding, dilation, strict=True))
    taps = [
        row[y] * kernel[1] + column[x] if row[y] >= 0 and column[x] >= 0 else kernel[0] * kernel[1]
        for row, column in product(rows, columns)
        for y, x in product(range(map_size[0]), range(map_size[1]))
    ]
    with torch.inference_mode(False):  # training wants it too
        return torch.tensor(taps, device=device)


def _along(size: int, kernel: int, stride: int, padding: int, dilation: int) -> list[list[int]]:
    """The tap of a kernel that joins an output place to an input place along one axis, -1 for none; [outputs][size]."""
    of_offset = {tap * dilation: tap for tap in range(kernel)}
    outputs = _outputs(size, kernel, stride, padding, dilation)
    return [[of_offset.get(i + padding - o * stride, -1) for i in range(size)] for o in range(outputs)]


def _outputs(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
