"""Optimizers by name; SGD and AdamW update all weights in one kernel where torch has one for their device."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

_FUSED_ON = ("cuda", "cpu")


def sgd(model: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> Optimizer:
    """SGD with momentum; decays every parameter, as the paper's recipe does."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay, fused=_can_fuse(model)
    )
    if _can_fuse(model) and momentum:
        # torch would take memory that nobody has written to, and leave it so if fp16 overflows in the first step.
        for parameter in model.parameters():
            if parameter.requires_grad:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def lars(model: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> Optimizer:
    """LARS (You et al., 2017), as SimCLR has it: biases and BN are neither adapted nor decayed."""
    from timm.optim.lars import Lars

    adapted = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": adapted, "always_adapt": True}, {"params": plain, "weight_decay": 0.0}]
    return Lars(groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, trust_coeff=0.001)


def adamw(model: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> Optimizer:
    """AdamW; `momentum` is its β₁."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=learning_rate,
        betas=(momentum, 0.999),
        weight_decay=weight_decay,
        fused=_can_fuse(model),
    )


OPTIMIZERS: dict[str, Callable[[nn.Module, float, float, float], Optimizer]] = {
    "sgd": sgd,
    "lars": lars,
    "adamw": adamw,
}


def _can_fuse(model: nn.Module) -> bool:
    return all(p.device.type in _FUSED_ON and p.is_floating_point() for p in model.parameters())
