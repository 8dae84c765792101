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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_in_one_kernel_is_that_of_each_weight_by_itself(name):
    fused, plain = model(), model()
    optimizers = [OPTIMIZERS[name](fused, 0.1, 0.9, 0.01), OPTIMIZERS[name](plain, 0.1, 0.9, 0.01)]
    assert optimizers[0].defaults["fused"]
    optimizers[1].param_groups[0].update(fused=False, foreach=False)
    for step in range(3):
        for optimizer, made in zip(optimizers, (fused, plain), strict=True):
            for number, p in enumerate(made.parameters()):
                p.grad = torch.full_like(p, step - number)
            optimizer.step()
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_no_kernel_is_asked_for_where_there_is_none():
    assert not OPTIMIZERS["adamw"](model().to("meta"), 0.1, 0.9, 0.0).defaults["fused"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_overflow_in_the_first_step_leaves_the_momentum_at_zero(name, monkeypatch):
    monkeypatch.setattr(torch, "empty_like", lambda tensor, **_: torch.full_like(tensor, 1e9))  # what memory may hold
    made, spared = model(), model()
    results = []
    for network, gradients in ((made, (float("inf"), 1.0)), (spared, (1.0,))):
        optimizer = OPTIMIZERS[name](network, 0.1, 0.9, 0.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for gradient in gradients:
            scaler.scale(torch.ones(1))
            for p in network.parameters():
                p.grad = torch.full_like(p, gradient) * scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
        results.append([p.detach() for p in network.parameters()])
    for after_overflow, alone in zip(*results, strict=True):
        torch.testing.assert_close(after_overflow, alone)


def test_adamw_takes_momentum_as_its_first_beta():
    assert OPTIMIZERS["adamw"](model(), 0.1, 0.8, 0.0).defaults["betas"] == (0.8, 0.999)
