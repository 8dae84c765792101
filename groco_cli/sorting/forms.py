"""Which form of the group mass a device computes: the fused one on a GPU that it runs on, else step by step."""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from groco_cli.sorting.group_mass import group_mass

Form = Callable[[Tensor, int, str, str, float], Tensor]


def form_for(device: torch.device) -> Form:
    """The group mass for tensors of a device; every form has the same values and gradient.

    Args:
        device: Of the values; the fused form is tried once on each CUDA device, and where it does not run, a
            `RuntimeWarning` says why.
    """
    return _form_for_gpu(device) if device.type == "cuda" else group_mass


@cache
def _form_for_gpu(device: torch.device) -> Form:
    try:
        from groco_cli.sorting.fused import fused_group_mass

        fused_group_mass(torch.zeros(1, 2, device=device), 1, "odd_even", "cauchy", 1.0)
    except Exception as error:  # no Triton, no C compiler or Python header for it, an old GPU: no base class in common
        why = (str(error).strip() or repr(error)).splitlines()[0]
        warnings.warn(
            f"{device}: Triton does not run ({why}); sorting step by step instead, slower and with the same values",
            RuntimeWarning,
            stacklevel=4,
        )
        return group_mass
    return fused_group_mass
