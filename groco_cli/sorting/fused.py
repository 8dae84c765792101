"""The group mass on a GPU: one kernel launch forward and one backward, whatever the network.

`group_mass` computes the same in several small tensor operations a step, and a GPU would spend its time on launching
them. Importing this module needs Triton; `forms` says where it is used.
"""

from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from groco_cli.sorting import kernels
from groco_cli.sorting.comparators import steps_of

_LANES = 32  # One warp a program: what places exchange never leaves it, and needs no other warp to wait.


def fused_group_mass(x: Tensor, k: int, kind: str, relaxation: str, beta: float) -> Tensor:
    """`group_mass`: the same arguments, values and gradient, in two kernels.

    Keeps n/2 numbers a step and list for the backward pass, which takes as many again for itself.
    """
    mass: Tensor = _FusedGroupMass.apply(x.reshape(-1, x.shape[-1]).contiguous(), k, kind, relaxation, beta)
    return mass.view(x.shape)


class _FusedGroupMass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, k: int, kind: str, relaxation: str, beta: float) -> Tensor:
        ctx.k, ctx.kind, ctx.relaxation, ctx.beta = k, kind, relaxation, beta
        anchors, size = rows.shape
        lists = _lists(size)
        differences = rows.new_empty(triton.cdiv(anchors, lists), len(steps_of(kind, size)), lists, size // 2)
        mass = torch.empty_like(rows)
        probability, _ = kernels.RELAXATIONS[relaxation]
        _launch(kernels.forward, (rows, mass, differences), k, kind, beta, probability=probability)
        ctx.save_for_backward(differences)
        return mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (differences,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        apart, of_values = torch.empty_like(differences), torch.empty_like(gradient)
        probability, slope = kernels.RELAXATIONS[ctx.relaxation]
        tensors = gradient, of_values, differences, apart
        _launch(kernels.backward, tensors, ctx.k, ctx.kind, ctx.beta, probability=probability, slope=slope)
        return of_values, None, None, None, None


def _lists(size: int) -> int:
    """How many lists a program sorts."""
    return max(1, _LANES // int(triton.next_power_of_2(size)))


def _launch(kernel: Any, tensors: tuple[Tensor, ...], k: int, kind: str, beta: float, **relaxation: Any) -> None:
    anchors, size = tensors[0].shape
    lists = _lists(size)
    # Triton launches on the current device.
    with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
        kernel[(triton.cdiv(anchors, lists),)](
            *tensors,
            _table(kind, size, tensors[0].device),
            anchors,
            k,
            float(beta),
            size=size,
            steps=len(steps_of(kind, size)),
            lists=lists,
            places=triton.next_power_of_2(size),
            **relaxation,
            num_warps=1,
            enable_fp_fusion=False,  # rounds as the separate operations do
        )


@cache
def _table(kind: str, size: int, device: torch.device) -> Tensor:
    """Each step's partners, signs and pairs, as the kernels read them; places beyond the list stay idle."""
    places = triton.next_power_of_2(size)
    table = []
    for firsts, seconds in steps_of(kind, size):
        partner, sign, pair = list(range(places)), [0] * places, [0] * places
        for number, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
            partner[first], partner[second] = second, first
            sign[first], sign[second] = 1, -1
            pair[first] = pair[second] = number
        table.append([partner, sign, pair])
    return torch.tensor(table, dtype=torch.int32, device=device)
