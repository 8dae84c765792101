"""The training step: what it does in which order, and that a measurement sees its parts without changing them."""

import copy

import pytest
import torch

from groco_cli.engine.objective import build_loss
from groco_cli.engine.processes import Processes
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.step import PARTS, TrainingStep, build_step

ALONE = Processes(device=torch.device("cpu"))


def built(settings: PretrainSettings) -> TrainingStep:
    step = build_step(settings, build_loss(settings.loss, settings.method.method), ALONE, "fp32")
    step.model.train()
    return step


@pytest.fixture
def views() -> list[torch.Tensor]:
    return list(torch.randn(2, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def test_a_step_is_forward_loss_backward_and_sgd_at_the_rate_given(quick, views):
    step = built(quick)
    model, loss = copy.deepcopy(step.model), build_loss(quick.loss)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-6)
    for _ in range(3):
        measured, compared = step(views, progress=0.5, rate=0.3)
        expected = loss(model.projector(model.encoder(torch.cat(views))).chunk(2))
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        torch.testing.assert_close(measured, expected.detach())
        assert not measured.requires_grad
        assert len(compared.anchors) == 2
    assert step.state.step == 3
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(step.model.state_dict()[name], weight, msg=name)


def test_the_weights_follow_from_the_seed_alone(quick):
    torch.manual_seed(99)
    first = built(quick).model.state_dict()
    torch.manual_seed(100)
    again = built(quick).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_its_parts_are_told_in_order_when_each_is_over(quick, views):
    step = built(quick)
    weight = next(step.model.parameters())
    seen = []

    def done(part: str) -> None:
        seen.append((part, weight.grad is not None, not torch.equal(weight, before)))

    before = weight.detach().clone()
    step(views, progress=0.0, rate=0.3, done=done)
    assert [part for part, _, _ in seen] == list(PARTS)
    assert [graded for _, graded, _ in seen] == [False, False, True, True]
    assert [moved for _, _, moved in seen] == [False, False, False, True]
