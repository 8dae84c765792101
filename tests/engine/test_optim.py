"""Optimizers: which parameters are decayed and adapted."""

import pytest
import torch
from torch import nn

from groco_cli.engine.optim import OPTIMIZERS


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def stepped(name: str, weight_decay: float) -> list[torch.Tensor]:
    """How far one step moves each parameter under a gradient of ones."""
    made = model()
    before = [p.detach().clone() for p in made.parameters()]
    optimizer = OPTIMIZERS[name](made, 0.1, 0.9, weight_decay)
    for p in made.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return [after.detach() - start for after, start in zip(made.parameters(), before, strict=True)]


def test_sgd_decays_every_parameter_as_published():
    for plain, decayed, p in zip(stepped("sgd", 0.0), stepped("sgd", 0.5), model().parameters(), strict=True):
        torch.testing.assert_close(decayed, plain - 0.1 * 0.5 * p.detach())


def test_lars_neither_decays_nor_adapts_biases_and_bn():
    for moved, p in zip(stepped("lars", 0.5), model().parameters(), strict=True):
        if p.ndim == 1:
            torch.testing.assert_close(moved, torch.full_like(moved, -0.1))


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_lars_scales_matrices_by_their_trust_ratio(weight_decay):
    weight = next(model().parameters()).detach()
    gradient = torch.ones_like(weight)
    ratio = 0.001 * weight.norm() / (gradient.norm() + weight_decay * weight.norm() + 1e-8)
    expected = -0.1 * ratio * (gradient + weight_decay * weight)
    torch.testing.assert_close(stepped("lars", weight_decay)[0], expected)


def test_adamw_takes_momentum_as_its_first_beta():
    assert OPTIMIZERS["adamw"](model(), 0.1, 0.8, 0.0).defaults["betas"] == (0.8, 0.999)
