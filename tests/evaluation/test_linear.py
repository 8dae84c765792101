"""The heads against torch's autograd and SGD, apex's LARC written out by hand, and a loop that ranks classes."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.evaluation.linear import LinearHeads, count_correct

CPU = torch.device("cpu")


def heads_of(count: int, classes: int = 4, dim: int = 6, seed: int = 0) -> LinearHeads:
    return LinearHeads.create(count, classes, dim, seed=seed, device=CPU)


def in_float64(heads: LinearHeads) -> LinearHeads:
    return LinearHeads(*(getattr(heads, field.name).double() for field in fields(heads)))


def batches(steps: int, size: int = 9, classes: int = 4, dim: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, dim, generator=generator), torch.randint(classes, (size,), generator=generator))
        for _ in range(steps)
    ]


def adapt_by_hand(parameter: Tensor, weight_decay: float) -> None:
    """What apex's LARC with clip=False and trust 0.001 does to a gradient before SGD's step."""
    length, slope = parameter.detach().norm().item(), parameter.grad.norm().item()
    if length != 0 and slope != 0:
        rate = 0.001 * length / (slope + length * weight_decay + 1e-8)
        parameter.grad.add_(parameter.detach(), alpha=weight_decay).mul_(rate)


def trained_by_hand(
    heads: LinearHeads, rates: list[float], weight_decay: float, data: list[tuple[Tensor, Tensor]]
) -> list[torch.nn.Linear]:
    """Each head alone: torch's Linear, cross-entropy by autograd, the gradient adapted, torch's SGD."""
    trained = []
    for number, rate in enumerate(rates):
        layer = torch.nn.Linear(heads.weight.shape[2], heads.weight.shape[1], dtype=torch.float64)
        layer.load_state_dict({"weight": heads.weight[number], "bias": heads.bias[number]})
        optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
        for features, labels in data:
            optimizer.zero_grad()
            F.cross_entropy(layer(features.double()), labels).backward()
            for parameter in layer.parameters():
                adapt_by_hand(parameter, weight_decay)
            optimizer.step()
        trained.append(layer)
    return trained


@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
def test_steps_are_those_of_apexs_larc_around_torchs_sgd(weight_decay: float):
    heads, rates = in_float64(heads_of(3)), [0.1, 7.0, 300.0]
    expected = trained_by_hand(heads, rates, weight_decay, batches(12))
    before = heads.weight.clone()
    for features, labels in batches(12):
        heads.step(features.double(), labels, rates, images=len(features), weight_decay=weight_decay)
    for number, layer in enumerate(expected):
        torch.testing.assert_close(heads.weight[number], layer.weight.detach(), rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(heads.bias[number], layer.bias.detach(), rtol=1e-7, atol=1e-10)
    assert (heads.weight - before).abs().amax(dim=(1, 2)).min() > 1e-5, "nothing was learnt"


def test_the_first_step_of_the_bias_which_is_zero_is_plain_sgd():
    heads, (features, labels) = heads_of(1), batches(1)[0]
    slope = (heads.logits(features)[:, 0].softmax(dim=1) - F.one_hot(labels, 4)).mean(dim=0)
    heads.step(features, labels, [0.5], images=len(features))
    torch.testing.assert_close(heads.bias[0], -0.5 * slope)


def test_several_heads_at_once_equal_as_many_alone():
    rates, together = [0.1, 5.0, 80.0], heads_of(3)
    losses = [together.step(features, labels, rates, images=9) for features, labels in batches(10)]
    for number, rate in enumerate(rates):
        alone = heads_of(1)
        own = [alone.step(features, labels, [rate], images=9) for features, labels in batches(10)]
        torch.testing.assert_close(torch.stack(losses)[:, number], torch.stack(own)[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.weight[number], alone.weight[0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(together.bias[number], alone.bias[0], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(together.weight[0], together.weight[2], rtol=0.1)


def test_the_loss_is_summed_cross_entropy_before_the_step():
    heads, (features, labels) = heads_of(2), batches(1)[0]
    expected = F.cross_entropy(heads.logits(features)[:, 1], labels, reduction="sum")
    torch.testing.assert_close(heads.step(features, labels, [1.0, 2.0], images=9)[1], expected)


def test_heads_begin_alike_with_small_weights_and_no_bias():
    heads = heads_of(2, classes=50, dim=400)
    assert torch.equal(heads.weight[0], heads.weight[1])
    assert heads.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not heads.bias.any()
    assert not torch.equal(heads.weight, heads_of(2, classes=50, dim=400, seed=1).weight)


@pytest.mark.parametrize("images", [1, 4095, 4097])
def test_every_image_is_ranked_once_the_last_block_partial(images: int):
    heads = heads_of(2, classes=7, dim=3)
    heads.weight[1].neg_()
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(images, 3, generator=generator)
    labels = torch.randint(7, (images,), generator=generator)
    expected = torch.full((2, 3), images)
    for head in range(2):
        ranking = (features @ heads.weight[head].T).argsort(dim=1, descending=True)
        expected[head, 0] = (ranking[:, 0] == labels).sum()
        expected[head, 1] = (ranking[:, :5] == labels[:, None]).any(dim=1).sum()
    assert torch.equal(count_correct(heads, features, labels), expected)


def test_of_equal_logits_the_lower_class_is_ranked_first():
    heads = heads_of(1, classes=7)
    heads.weight.zero_()
    features = torch.randn(7, 6)
    assert count_correct(heads, features, torch.arange(7)).tolist() == [[1, 5, 7]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("classes", [3, 7])
def test_what_is_not_finite_is_never_right(value: float, classes: int):
    heads = heads_of(3, classes=classes)
    heads.weight[0] = value
    heads.bias[1, 2] = value
    features, labels = torch.ones(50, 6), torch.arange(50) % classes
    counts = count_correct(heads, features, labels)
    assert counts[:2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert counts[2, 0] == (heads.logits(features)[:, 2].argmax(dim=1) == labels).sum() > 0
    assert counts[2, 2] == 50
